"""Append-only files of framed records that survive the death of their writer.

A frame is its length (4 bytes, little-endian), the CRC-32 of its bytes and the bytes. One
`write` takes a whole batch, so that a killed process leaves whole frames; a torn end (power
loss, full disk) is recognised and ignored, and a damaged frame passed over where another one follows
it. While the disk refuses, frames wait in memory up to
a limit and go out in order once it accepts again.

The writer holds an exclusive lock on its file: a file whose lock is free has lost its writer
and may be taken over.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from machine.linux import sync_data

_HEADER: Final = struct.Struct("<II")


class SpoolFull(RuntimeError):
    """The disk refuses and memory has taken its limit: nothing more can be kept."""


def frame(record: bytes) -> bytes:
    """`record` as it stands in a file."""
    return _HEADER.pack(len(record), zlib.crc32(record)) + record


def read_frames(path: Path) -> Iterator[bytes]:
    """The records of a file in order, up to a torn end."""
    for record, _ in _frames(path.read_bytes()):
        yield record


def read_part(path: Path, at: int, most: int) -> tuple[list[bytes], int]:
    """The records that stand whole in `most` bytes from byte `at` (at least one, if there is any),
    and where the next one begins.
    """
    with path.open("rb") as file:
        file.seek(at)
        data = file.read(_HEADER.size)
        if len(data) == _HEADER.size:
            data += file.read(max(most, _HEADER.unpack(data)[0]))
    records, end = [], 0
    for record, after in _frames(data):
        records.append(record)
        end = after
    return records, at + end


def _frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Whole records from the start of `data`, each with the place where the next one begins."""
    at, size = 0, len(data)
    written = len(data.rstrip(b"\0"))  # zeros behind it are what a power loss leaves, and no empty records
    while at + _HEADER.size <= size:
        record = _record(data, at)
        if record is None:
            after = at + _HEADER.size + _HEADER.unpack_from(data, at)[0]
            if _record(data, after) is None:
                return
            at = after
            continue
        if not record and at >= written:
            return
        at += _HEADER.size + len(record)
        yield record, at


def _record(data: bytes, at: int) -> bytes | None:
    """The record of the frame at `at`; None where none stands whole."""
    if at + _HEADER.size > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, at)
    start = at + _HEADER.size
    record = data[start : start + length]
    return record if length == len(record) and zlib.crc32(record) == checksum else None


class SpoolFile:
    """One new file being written. `held` counts the records that wait in memory for the disk."""

    def __init__(self, path: Path, *, limit: int = 20_000) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.limit = limit
        self.written = 0
        self._held: deque[bytes] = deque()
        # Locked before it has its name: between the two, it would look as if its writer were gone.
        unborn = path.with_name(path.name + ".new")
        self._descriptor = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            unborn.rename(path)
        except OSError:
            os.close(self._descriptor)
            raise
        self._end = 0

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def full(self) -> bool:
        return len(self._held) >= self.limit

    def append(self, records: Sequence[bytes]) -> bool:
        """Write `records`; False when they had to stay in memory. Raises `SpoolFull`."""
        if self._held:
            self.flush()
        frames = [frame(record) for record in records]
        if not self._held and self._write(b"".join(frames)):
            self.written += len(frames)
            return True
        if len(self._held) + len(frames) > self.limit:
            raise SpoolFull(
                f"{self.path.name}: the disk refuses and {len(self._held)} records wait in memory"
            )
        self._held.extend(frames)
        return False

    def flush(self) -> bool:
        """Try to write what waits in memory; True when nothing waits any more."""
        while self._held:
            chunk = [self._held[index] for index in range(min(256, len(self._held)))]
            if not self._write(b"".join(chunk)):
                return False
            for _ in chunk:
                self._held.popleft()
            self.written += len(chunk)
        return True

    def _write(self, data: bytes) -> bool:
        try:
            done = os.pwrite(self._descriptor, data, self._end)
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done:], self._end + done)
        except OSError:
            # Cut a torn end off, so that the next write starts on a whole frame.
            os.ftruncate(self._descriptor, self._end)
            return False
        self._end += len(data)
        return True

    def truncate(self) -> None:
        """Forget everything written; what waits in memory stays."""
        os.ftruncate(self._descriptor, 0)
        self._end = 0
        self.written = 0

    def sync(self) -> None:
        """Ask the disk to keep it through a power loss; blocks, so call it from a thread."""
        sync_data(self._descriptor)

    def finish(self, final: Path) -> None:
        """Close the file and give it its final name."""
        self.flush()
        self.path.rename(final)
        os.close(self._descriptor)

    def close(self, *, remove: bool = False) -> None:
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def orphaned(path: Path) -> bool:
    """Whether `path` exists and nobody holds its lock: its writer is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
