"""What the stream keeps states for: the standard entities, then the declared stream views.

A track's place is what `place` means throughout the flow: shards, writes and records are numbered by it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from fraud.contract.transaction import FUTURE_TOLERANCE_MS
from fraud.declared.layout import SINCE, Layout
from fraud.declared.state import DeclaredState
from fraud.features.entities import ENTITIES, VELOCITY_TTL
from fraud.state.layout import STATE_VERSION
from fraud.state.velocity import VelocityState
from stores.declared import Declared, state_feature
from streaming.states.shard_batch import SHARDS

State = VelocityState | DeclaredState
#: Says that a stream which keeps its things in the folder has run.
_STARTED: Final = "started"
#: Seconds between two looks at what a backfill has said.
_LOOK_S: Final = 2.0
_TTL_MS: Final = int(VELOCITY_TTL.total_seconds()) * 1000


@dataclass(frozen=True, slots=True)
class Track:
    """States of one entity or declared view: where they go online, and how they are made, read and fed.

    `version` tells layouts apart; states of another one are not read. `ttl_ms`: how long an idle one is kept.
    """

    name: str
    key: str
    view: str
    feature: str
    version: int
    ttl_ms: int
    new: Callable[[], Any]
    unpack: Callable[[bytes], Any]
    add: Callable[[Any, Any, int], bool]
    standard: bool = True

    def shard_name(self, shard: int) -> str:
        """The name of one of its shards in files, snapshots and metrics."""
        return f"{self.name}:{shard}"


STANDARD: Final = tuple(
    Track(
        entity.name, entity.key, entity.velocity_view, entity.state_feature, STATE_VERSION, _TTL_MS,
        partial(VelocityState, entity), partial(VelocityState.unpack, entity), VelocityState.add,
    )
    for entity in ENTITIES
)  # fmt: skip


def track_of(layout: Layout, known: KnownFrom | None = None) -> Track:
    """The track of a declared stream view, whose states know every event from when `known` says."""
    return Track(
        layout.view, layout.key, layout.view, state_feature(layout.view), layout.digest, layout.ttl_ms,
        partial(_new, layout, known), partial(_unpack, layout, known), DeclaredState.add, False,
    )  # fmt: skip


def _new(layout: Layout, known: KnownFrom | None) -> DeclaredState:
    return DeclaredState(layout, known() if known else None)


def _unpack(layout: Layout, known: KnownFrom | None, data: bytes) -> DeclaredState:
    state = DeclaredState.unpack(layout, data)
    if known is not None and state.header[SINCE]:
        state.header[SINCE] = min(state.header[SINCE], known())
    return state


def tracks_of(declared: Declared, folder: Path | None = None) -> tuple[Track, ...]:
    """Every track by place. With the stream's `folder`, a view that a running stream takes up now knows
    events from now on only, which is noted there once."""
    layouts = declared.layouts
    if folder is None:
        return (*STANDARD, *[track_of(layout) for layout in layouts])
    known = [KnownFrom(layout, folder) for layout in layouts]
    for each in known:
        each.note()
    (folder / "views").mkdir(parents=True, exist_ok=True)
    (folder / "views" / _STARTED).touch()
    return (*STANDARD, *map(track_of, layouts, known))


class KnownFrom:
    """The event time (milliseconds) from which states of a layout know every event, as a file says.

    A stream that starts with nothing reads its log from the beginning: what was declared holds. One that has
    run before has read past events which the view was not there for, so it knows those to come. (Clients'
    clocks may be a little ahead.) The first process to ask decides. A backfill that has sent all history
    says so (`complete`), and the running stream takes it up within seconds.
    """

    def __init__(self, layout: Layout, folder: Path) -> None:
        self._layout = layout
        self._path = folder / "views" / f"{layout.view}.{layout.digest:012x}.json"
        self._started = folder / "views" / _STARTED
        self._known = layout.known_from_ms
        self._looked = 0.0

    def __call__(self) -> int:
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._looked = now
            self._known = self._said()["known_from_ms"]
        return self._known

    def note(self) -> None:
        """Decide when this is the first process to ask."""
        if self._path.exists():
            return
        now = time.time_ns() // 1_000_000
        since = now + FUTURE_TOLERANCE_MS if self._started.exists() else 0
        unfinished = self._unfinished(max(since, self._layout.known_from_ms), now)
        with suppress(FileExistsError):  # another process was first
            os.link(unfinished, self._path)
        unfinished.unlink()

    def decided(self) -> bool:
        """Whether the stream has taken up the layout."""
        return self._path.exists()

    @property
    def taken_up(self) -> datetime:
        """When the stream took up the layout: history up to then is what it lacks."""
        return datetime.fromtimestamp(self._said()["taken_up_ms"] / 1000, UTC)

    def complete(self, since_ms: int) -> None:
        """All history from `since_ms` on has been sent to the stream."""
        self._unfinished(since_ms, self._said()["taken_up_ms"]).replace(self._path)

    def _said(self) -> dict[str, int]:
        said: dict[str, int] = json.loads(self._path.read_bytes())
        return said

    def _unfinished(self, since_ms: int, taken_up_ms: int) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(f".{os.getpid()}.tmp")
        unfinished.write_text(json.dumps({"known_from_ms": since_ms, "taken_up_ms": taken_up_ms}))
        return unfinished


def shard_routes(tracks: tuple[Track, ...], standard: tuple[str, ...]) -> tuple[str, ...]:
    """The dataflow's key of every shard, by its index; `standard` are those of the entities."""
    own = tracks[len(STANDARD) :]
    return (*standard, *[track.shard_name(shard) for track in own for shard in range(SHARDS)])
