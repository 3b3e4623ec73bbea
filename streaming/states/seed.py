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
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fraud.declared.layout import SINCE
from fraud.declared.state import DeclaredState
from fraud.features.entities import ENTITIES
from stores.declared import declared
from stores.event_log import partition_of
from stores.keys import open_keys
from stores.redis_clients import connect_any
from stores.redis_layout import decode_timestamp, entity_key, ts_field
from stores.settings import Settings, settings
from streaming.ingest.control import encode_seed
from streaming.log.publish import open_writer
from streaming.states.tracks import KnownFrom, tracks_of

if TYPE_CHECKING:
    from feature_repo.velocity_replay import Logged

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
    tracks = {track.name: track for track in tracks_of(declared(configured))}
    seal = open_keys(configured).seal("control")
    with open_writer(configured) as writer:
        for name, key, state in states:
            track = tracks[name]
            writer.publish_raw(
                partition_of(key, configured.event_log.partitions), encode_seed(seal, name, key, state)
            )
            count += 1
            if wait_seconds is not None:
                version = track.unpack(state).version
                redis_key = entity_key(configured.feast.project, track.key, key)
                waiting.append((redis_key, ts_field(track.view), version))
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
        "--before", type=datetime.fromisoformat,
        help="newest states known before this time (of --views: when the stream took them up, if not given)",
    )  # fmt: skip
    parser.add_argument("--views", nargs="+", help="only these declared stream views, whose warming ends so")
    parser.add_argument("--wait-seconds", type=float, default=300)
    chosen = parser.parse_args(arguments)
    if chosen.before is None and not chosen.views:
        parser.error("--before is needed, or --views that the stream has taken up")
    try:
        if chosen.views:
            seeded = seed_views(settings(), chosen.views, chosen.before, wait_seconds=chosen.wait_seconds)
        else:
            seeded = seed_states(settings(), _newest(chosen.before), wait_seconds=chosen.wait_seconds)
    except (SeedError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{seeded:,} states seeded")
    return 0


def _newest(before: datetime) -> Iterator[tuple[str, str, bytes]]:
    """The newest states of every entity and declared view known before a time."""
    from feature_repo.declared_log import logged_views
    from feature_repo.velocity_log import newest_states

    chosen: list[Logged] = [*ENTITIES, *logged_views(declared())]
    for logged in chosen:
        for key, state in newest_states(logged, before):
            yield logged.name, key, state


def seed_views(
    configured: Settings, views: Sequence[str], before: datetime | None, *, wait_seconds: float | None = None
) -> int:
    """Send the rebuilt history of declared views to the running stream; end their warming; return how many
    states were sent. Without `before`, history ends when the stream took each view up."""
    from feature_repo.declared_log import logged_views
    from feature_repo.velocity_log import newest_states

    own = declared(configured)
    folder = configured.home / "stream"
    seeded = 0
    for layout, logged in zip(own.layouts, logged_views(own), strict=True):
        if logged.name not in views:
            continue
        known = KnownFrom(layout, folder)
        found = newest_states(logged, before or known.taken_up)
        rebuilt = [
            (logged.name, key, state)
            for key, state in found
            if int.from_bytes(state[:8], "little", signed=True) == layout.kind
        ]
        seeded += seed_states(configured, rebuilt, wait_seconds=wait_seconds)
        since = [DeclaredState.unpack(layout, state).header[SINCE] for _, _, state in rebuilt]
        if since:
            known.complete(max(since))
    return seeded


if __name__ == "__main__":
    sys.exit(main())
