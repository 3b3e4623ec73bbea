"""States of a backlog that wait to be packed and written, so that one with many events is written once."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Final

#: States are held no longer than this, nor than so large a part of what their oldest event has waited
#: by then: they become little older than they are. (Both are looked at when events come; should they
#: stop to, before the partition has caught up, states go this long after the last of them.)
MOST_HELD: Final = timedelta(seconds=3)
_SHARE: Final = 0.5


class HeldStates:
    """States of one shard that have changed since its last write.

    `states` are they, by entity value; `appended_ms` is when the oldest of their events entered the log
    (wall clock, 0 if unknown), `first` the entry of the shard's log of updates that began it.
    """

    __slots__ = ("_since", "appended_ms", "first", "states")

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}
        self.appended_ms = 0
        self.first = 0
        self._since = 0.0

    def __bool__(self) -> bool:
        return bool(self.states)

    def begin(self, first: int) -> None:
        """Hold states from now on, if none are held yet."""
        if not self.states:
            self.first, self.appended_ms, self._since = first, 0, time.monotonic()

    def note(self, appended_ms: int) -> None:
        """An event that entered the log then changes a state."""
        if appended_ms and (appended_ms < self.appended_ms or not self.appended_ms):
            self.appended_ms = appended_ms

    def may_stay(self) -> bool:
        """Whether what is held may wait for the next events."""
        waited = time.time() - self.appended_ms / 1000  # for ever, where the log has no times
        held = time.monotonic() - self._since
        return held < min(MOST_HELD.total_seconds(), _SHARE * waited)

    def take(self) -> dict[str, Any]:
        """What was held; nothing is held any more."""
        taken, self.states = self.states, {}
        return taken
