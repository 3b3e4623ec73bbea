"""States of a backlog are held, and written once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from streaming.states.held_states import MOST_HELD
from streaming.states.shard_batch import Writes
from streaming.states.shards import ShardLogic
from tests.streaming.one_shard import (
    Start,
    history,
    states,
    take_base,
    updates,
    written,
)


def test_the_states_of_a_backlog_are_written_once_when_it_ends(start: Start) -> None:
    transactions = history(90)
    shard = start()
    assert shard.on_batch([updates(transactions[:30], more=True)]) == ([], False)
    assert shard.on_batch([updates(transactions[30:60], more=True)]) == ([], False)
    writes, _ = shard.on_batch([updates(transactions[60:])])
    assert written(writes) == states(transactions)
    assert len(writes[0].values) == len(set(writes[0].values))
    assert shard.notify_at() is None
    assert shard.on_eof() == ([], False)


def test_events_of_a_partition_that_has_caught_up_do_not_wait_for_anothers_backlog(start: Start) -> None:
    transactions = history(40)
    writes, _ = start().on_batch(
        [updates(transactions[:20]), updates(transactions[20:], more=True, source=1)]
    )
    assert written(writes) == states(transactions)


def test_a_backlog_that_ends_before_anothers_is_written_with_it(start: Start) -> None:
    transactions = history(90)
    shard = start()
    assert shard.on_batch([updates(transactions[:30], more=True, source=0)]) == ([], False)
    assert shard.on_batch([updates(transactions[30:60], more=True, source=1)]) == ([], False)
    assert shard.on_batch([updates([], source=0)]) == ([], False)
    assert shard.notify_at() is not None
    assert shard.on_batch([updates(transactions[60:], more=True, source=1)]) == ([], False)
    writes, _ = shard.on_batch([updates([], source=1)])
    assert written(writes) == states(transactions)


@pytest.mark.parametrize("end", [ShardLogic.on_notify, ShardLogic.on_eof])
def test_held_states_go_when_no_more_events_come(
    start: Start, end: Callable[[ShardLogic], tuple[list[Writes], bool]]
) -> None:
    transactions = history(30)
    shard = start()
    shard.on_batch([updates(transactions, more=True)])
    due = shard.notify_at()
    assert due is not None
    assert timedelta(0) < due - datetime.now(UTC) <= MOST_HELD
    assert written(end(shard)[0]) == states(transactions)


def test_states_are_held_for_a_part_of_what_their_events_have_waited(start: Start) -> None:
    def held(waited_ms: int) -> bool:
        oldest = time.time_ns() // 1_000_000 - waited_ms
        return not start().on_batch([updates(history(30), more=True, appended_ms=oldest)])[0]

    assert held(waited_ms=60_000)
    assert not held(waited_ms=-1_000)  # the log's clock is ahead of ours


def test_a_snapshot_has_what_is_held_and_the_run_that_resumes_writes_it(start: Start) -> None:
    #  written at once | held | snapshots, the last with a base | a crash before what is held is written
    before, held = history(20, customers=4), history(40, customers=9, seed=2)
    shard = start()
    shard.on_batch([updates(before, replayed=True)])
    shard.snapshot()
    shard.on_batch([updates(held, more=True)])
    snapshots = [shard.snapshot(), shard.snapshot(), shard.snapshot(), take_base(shard)]
    for snapshot in snapshots:
        resumed = start(snapshot, stored=0)
        missing = written(resumed.on_batch([updates([], replayed=True)])[0])
        assert states(held).keys() <= missing.keys()
        assert missing.items() <= states(before + held).items()
        assert resumed._packed == states(before + held)
    assert written(shard.on_notify()[0]) == missing
