"""A store that was flushed while stream and service run comes back by one command."""

from __future__ import annotations

from collections.abc import Callable

import redis

from jobs.restore import ask_for_states
from stores.settings import Settings
from streaming.log.load import Load, events
from streaming.log.publish import open_writer
from tests.streaming.conftest import FlowProcess, eventually
from tests.streaming.conftest import configured as configured
from tests.streaming.conftest import flow as flow
from tests.streaming.oracle import plain_loop, stored_states


def test_the_running_stream_writes_all_its_states_again(
    configured: Settings, flow: Callable[..., FlowProcess]
) -> None:
    paid = [event.transaction for event in events(Load(600, customers=60), 2) if event.transaction]
    expected = plain_loop(paid)
    running = flow()
    with open_writer(configured) as writer:
        for one in paid[:-20]:
            writer.publish(one)
    eventually(lambda: len(stored_states(configured, expected)) >= 0.9 * len(expected))
    with open_writer(configured) as writer:
        for one in paid[-20:]:
            writer.publish(one)
    eventually(lambda: len(stored_states(configured, expected)) == len(expected))
    with redis.Redis.from_url(configured.redis.url) as client:
        client.flushall()
    assert stored_states(configured, expected) == {}
    ask_for_states(configured)
    eventually(lambda: len(stored_states(configured, expected)) == len(expected))
    again = stored_states(configured, expected)
    running.stop()
    assert {key: len(state) for key, state in again.items()} == {
        key: len(state.pack()) for key, state in expected.items()
    }
