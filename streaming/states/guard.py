"""One entity's failure stays its own: no update and no state of one key ends the flow.

What a state cannot take goes aside with its reason and is counted; the state stays what it was, and those
of all other keys go on. Nothing that the contract accepts is known to fail: this is for what nobody foresaw.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Final

from stores.aside import put_aside
from streaming import metrics
from streaming.states.tracks import State, Track

_log: Final = logging.getLogger(__name__)


class Guard:
    """Adds, merges, packs and unpacks the states of one shard, key by key where one fails.

    `folder` is where failures go aside; None keeps only their count.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._said: set[tuple[str, str]] = set()

    def add(
        self, track: Track, states: Sequence[State], values: Sequence[str], seen: Sequence[Any], place: int
    ) -> list[bool]:
        """Add `seen[i]` to `states[i]`; False where nothing changed, or where it failed."""
        added: list[bool] = []
        adding = map(track.add, states, seen, repeat(place))
        while len(added) < len(states):
            try:
                added.extend(adding)  # what was added before one fails stays in the list
            except Exception as error:  # noqa: BLE001  one key's failure is not the others'
                self.failed(track, values[len(added)], "an event could not be added", error)
                added.append(False)
        return added

    def merge(self, track: Track, state: State, value: str, packed: bytes) -> tuple[State, bool]:
        """`state` with a packed one merged into it, and whether that changed it; as it was where it fails."""
        before = state.pack()
        try:
            return state, state.merge(track.unpack(packed))
        except Exception as error:  # noqa: BLE001
            self.failed(track, value, "a seed could not be merged", error, packed)
            return self.unpack(track, value, before), False

    def unpack(self, track: Track, value: str, packed: bytes) -> State:
        """The state that was packed; one that cannot be read begins anew."""
        try:
            state: State = track.unpack(packed)
        except Exception as error:  # noqa: BLE001
            self.failed(track, value, "a state could not be read and begins anew", error, packed)
            state = track.new()
        return state

    def pack(self, track: Track, states: Mapping[str, State]) -> dict[str, bytes]:
        """Every state packed, but for those that cannot be."""
        try:
            return {value: state.pack() for value, state in states.items()}
        except Exception:  # noqa: BLE001
            return self._one_by_one(track, states)

    def _one_by_one(self, track: Track, states: Mapping[str, State]) -> dict[str, bytes]:
        packed = {}
        for value, state in states.items():
            try:
                packed[value] = state.pack()
            except Exception as error:  # noqa: BLE001
                self.failed(track, value, "a state could not be packed and is as it was before", error)
        return packed

    def failed(self, track: Track, value: str, reason: str, error: Exception, data: bytes = b"") -> None:
        """Count a failure and put it aside; the log says the first of a kind, and not whose it was."""
        metrics.STATES_FAILED.labels(track.name).inc()
        kind = type(error).__name__
        if (reason, kind) not in self._said:
            self._said.add((reason, kind))
            _log.error("%s: %s (%s); more of them are only counted", track.name, reason, kind)
        if self._folder is not None:
            put_aside(self._folder, f"{reason}: {kind}", data, track=track.name, key=value)
