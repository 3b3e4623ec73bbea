"""Seeds the live stream with states that a backfill rebuilt: `python -m streaming.states.seed --before T`.

Each state goes through the event log as a control record, signed with the deployment's keys; the
flow merges it into what it has and writes the result to Redis. So the flow stays the only writer of
velocity, and need not stop. History should end where the live log begins: beyond the exact part of
a state, events that both hold would count twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fraud.features.entities import ENTITY_BY_NAME
from fraud.state.velocity import VelocityState
from stores.event_log import partition_of
from stores.keys import open_keys
from stores.redis_clients import connect_any
from stores.redis_layout import decode_timestamp, entity_key, ts_field
from stores.settings import Settings, settings
from streaming.ingest.control import encode_seed
from streaming.log.publish import open_writer

_CHUNK = 2000


class SeedError(RuntimeError):
    """Seeds that did not become visible; the text says how many and what to look at."""


def seed_states(
    configured: Settings, states: Iterable[tuple[str, str, bytes]], *, wait_seconds: float | None = None
) -> int:
    """Publish (entity name, entity value, packed state) to the event log; return how many.

    With `wait_seconds`, wait until Redis shows every one of them or something newer, and
    raise `SeedError` if that takes longer.
    """
    waiting: list[tuple[bytes, bytes, int]] = []
    count = 0
    seal = open_keys(configured).seal("control")
    with open_writer(configured) as writer:
        for name, key, state in states:
            entity = ENTITY_BY_NAME[name]
            writer.publish_raw(
                partition_of(key, configured.event_log.partitions), encode_seed(seal, name, key, state)
            )
            count += 1
            if wait_seconds is not None:
                version = VelocityState.unpack(entity, state).version
                redis_key = entity_key(configured.feast.project, entity.key, key)
                waiting.append((redis_key, ts_field(entity.velocity_view), version))
    if wait_seconds is not None:
        _wait(connect_any(configured.redis.url), waiting, time.monotonic() + wait_seconds)
    return count


def _wait(client: Any, waiting: list[tuple[bytes, bytes, int]], deadline: float) -> None:
    while waiting:
        pipeline = client.pipeline(transaction=False)
        for key, view_field, _ in waiting[:_CHUNK]:
            pipeline.hget(key, view_field)
        stored = pipeline.execute()
        late = [
            item
            for item, value in zip(waiting[:_CHUNK], stored, strict=True)
            if value is None or decode_timestamp(value) < item[2]
        ]
        waiting = waiting[_CHUNK:] + late
        if late:
            if time.monotonic() > deadline:
                raise SeedError(f"{len(waiting)} seeded states are not in Redis yet: is the stream running?")
            time.sleep(0.05)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m streaming.states.seed", description=__doc__)
    parser.add_argument(
        "--before", type=datetime.fromisoformat, required=True, help="newest states known before this time"
    )
    parser.add_argument("--wait-seconds", type=float, default=300)
    chosen = parser.parse_args(arguments)
    from feature_repo.velocity_log import newest_states

    states = (
        (entity.name, key, state)
        for entity in ENTITY_BY_NAME.values()
        for key, state in newest_states(entity, chosen.before)
    )
    try:
        print(f"{seed_states(settings(), states, wait_seconds=chosen.wait_seconds):,} states seeded")
    except SeedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
