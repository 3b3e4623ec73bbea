"""Which transaction ids were seen lately: bounded by number and by event time, cheap to snapshot."""

from __future__ import annotations

from array import array
from collections import deque

_SEGMENT = 8_192


class RecentIds:
    """The newest 64-bit transaction keys, oldest forgotten first.

    Holds between `limit` and `limit + 8192` keys, fewer if older than `horizon_ms` of event
    time. Snapshots share the bytes of full segments, so that taking one costs little.
    """

    def __init__(self, limit: int, horizon_ms: int, snapshot: tuple[tuple[bytes, int], ...] = ()) -> None:
        self._most = max(1, limit // _SEGMENT)
        self._horizon = horizon_ms
        self._known: set[int] = set()
        self._full: deque[tuple[bytes, int]] = deque()
        self._current = array("q")
        self._newest = 0
        for segment, newest in snapshot:
            keys = array("q", segment)
            self._known.update(keys)
            if len(keys) >= _SEGMENT:
                self._full.append((segment, newest))
            else:
                self._current, self._newest = keys, newest

    def __len__(self) -> int:
        return len(self._known)

    def add(self, key: int, event_ms: int) -> bool:
        """Remember `key`; False if it was known already."""
        known = self._known
        if key in known:
            return False
        known.add(key)
        self._current.append(key)
        if event_ms > self._newest:
            self._newest = event_ms
        if len(self._current) >= _SEGMENT:
            self._close_segment()
        return True

    def snapshot(self) -> tuple[tuple[bytes, int], ...]:
        return (*self._full, (self._current.tobytes(), self._newest))

    def _close_segment(self) -> None:
        full = self._full
        full.append((self._current.tobytes(), self._newest))
        self._current = array("q")
        while len(full) > self._most or (len(full) > 1 and full[0][1] < self._newest - self._horizon):
            self._known.difference_update(array("q", full.popleft()[0]))
