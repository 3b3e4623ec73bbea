"""Which transaction ids were seen lately: bounded by number and by event time, cheap to snapshot."""

from __future__ import annotations

from array import array
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streaming.states.disk import Disk, digest_of
from streaming.states.snapshots import SnapshotError, damaged_file, missing_file

_SEGMENT: Final = 8_192
#: Snapshots for which the file of a forgotten segment is kept: a crash resumes from a recent one.
_KEPT_SNAPSHOTS: Final = 4

#: A segment's number, newest event time, and keys; in place of keys that are on disk, their digest.
SegmentSnapshot = tuple[int, int, bytes, bytes]


class IdSegments:
    """Full segments of one partition in files, so that snapshots need not repeat them."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def write(self, number: int, keys: bytes) -> Future[None]:
        """Begin to write a segment; done once it is on disk."""
        return self._disk.write(self._path(number), lambda: keys)

    def read(self, number: int, digest: bytes) -> bytes:
        """The keys of a segment; SnapshotError if its file is gone, cut short or another one."""
        path = self._path(number)
        keys = path.read_bytes() if path.exists() else b""
        if len(keys) != 8 * _SEGMENT:
            raise missing_file(path.name, str(path.parent))
        if digest_of(keys) != digest:
            raise damaged_file(f"{path.parent.name}/{path.name}")
        return keys

    def drop(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def drop_before(self, number: int) -> None:
        """Delete what a crashed run has left behind of segments before `number`."""
        for path in self._folder.glob("*.ids"):
            if int(path.stem) < number:
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}.ids"


@dataclass(slots=True)
class _Segment:
    """A full segment; `writing` is done once its file is on disk, and None if it has none."""

    number: int
    newest: int
    keys: bytes
    writing: Future[None] | None
    digest: bytes = b""

    def snapshot(self) -> SegmentSnapshot:
        if self.writing is not None and self.writing.done():
            self.writing.result()
            if not self.digest:
                self.digest = digest_of(self.keys)
            return self.number, self.newest, b"", self.digest
        return self.number, self.newest, self.keys, b""


class RecentIds:
    """The newest 64-bit transaction keys, oldest forgotten first.

    Holds between `limit` and `limit + 8192` keys, fewer if older than `horizon_ms` of event
    time. With `segments` full segments are kept in files, and snapshots only name them. `snapshot`
    is what `snapshot()` returned.
    """

    def __init__(
        self,
        limit: int,
        horizon_ms: int,
        snapshot: tuple[SegmentSnapshot, ...] = (),
        segments: IdSegments | None = None,
    ) -> None:
        self._most = max(1, limit // _SEGMENT)
        self._horizon = horizon_ms
        self._segments = segments
        self._known: set[int] = set()
        self._full: deque[_Segment] = deque()
        self._current = array("q")
        self._newest = self._number = 0
        #: Numbers of forgotten segments, with the snapshots left until their files go.
        self._forgotten: deque[list[int]] = deque()
        for number, newest, held, digest in snapshot:
            keys = array("q", held or self._read(number, digest))
            self._known.update(keys)
            self._number, self._newest = number, newest
            if len(keys) >= _SEGMENT:
                self._keep(keys.tobytes(), on_disk=not held)
            else:
                self._current = keys
        if segments is not None and self._full:
            segments.drop_before(self._full[0].number)

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

    def snapshot(self) -> tuple[SegmentSnapshot, ...]:
        forgotten = self._forgotten
        for entry in forgotten:
            entry[1] -= 1
        while forgotten and forgotten[0][1] <= 0:
            if self._segments is not None:
                self._segments.drop(forgotten[0][0])
            forgotten.popleft()
        current = self._number, self._newest, self._current.tobytes(), b""
        full = tuple([segment.snapshot() for segment in self._full])
        return (*full, current) if self._current else full

    def _read(self, number: int, digest: bytes) -> bytes:
        if self._segments is None:
            raise SnapshotError("the recovery snapshot names a file of transaction ids; none are kept here")
        return self._segments.read(number, digest)

    def _keep(self, keys: bytes, *, on_disk: bool = False) -> None:
        """Make `keys` the newest full segment; the next one begins."""
        writing: Future[None] | None = None
        if on_disk:
            writing = Future()
            writing.set_result(None)
        elif self._segments is not None:
            writing = self._segments.write(self._number, keys)
        self._full.append(_Segment(self._number, self._newest, keys, writing))
        self._number += 1

    def _close_segment(self) -> None:
        full = self._full
        self._keep(self._current.tobytes())
        self._current = array("q")
        while len(full) > self._most or (len(full) > 1 and full[0].newest < self._newest - self._horizon):
            gone = full.popleft()
            self._known.difference_update(array("q", gone.keys))
            self._forgotten.append([gone.number, _KEPT_SNAPSHOTS])
