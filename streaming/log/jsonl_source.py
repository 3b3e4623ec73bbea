"""JSONL files as an event log: one file per partition, appended to and read by byte offset."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from streaming.log.batch import Batch, LogPositionError, Record

_EMPTY = Batch([], [], [])
_CHUNK = 1 << 20


def partition_file(folder: Path, topic: str, partition: int) -> Path:
    """The file of one partition."""
    return folder / f"{topic}-{partition}.jsonl"


class JsonlReader:
    """One file, read from a byte offset; a file that does not exist yet is empty.

    Implements `PartitionReader`. A line counts once its newline is there. The file says
    nothing of when a line was appended. `LogPositionError` if the file is shorter than the
    position to resume from.
    """

    def __init__(self, folder: Path, topic: str, partition: int, position: str | None, count: int) -> None:
        self._path = partition_file(folder, topic, partition)
        self._offset = int(position or 0)
        self._count = count
        self._file: BinaryIO | None = None
        self._rest = b""

    def read(self) -> Batch:
        file = self._open()
        if file is None:
            return _EMPTY
        data = self._rest
        while data.count(b"\n") < self._count and (chunk := file.read(_CHUNK)):
            data += chunk
        lines = data.split(b"\n", self._count)
        self._rest = lines.pop()
        if not lines:
            return _EMPTY
        positions = []
        offset = self._offset
        for line in lines:
            positions.append(str(offset))
            offset += len(line) + 1
        self._offset = offset
        return Batch(lines, positions, [0] * len(lines))

    def position(self) -> str:
        return str(self._offset)

    def end(self) -> str:
        """Just behind the newest whole line."""
        size = self._size()
        if size == 0:
            return "0"
        with self._path.open("rb") as file:
            while size > 0:
                start = max(0, size - _CHUNK)
                file.seek(start)
                newline = file.read(size - start).rfind(b"\n")
                if newline >= 0:
                    return str(start + newline + 1)
                size = start
        return "0"

    def reached(self, position: str) -> bool:
        return self._offset >= int(position)

    def lag(self) -> float:
        """Bytes between the end of the file and what has been read."""
        return float(max(0, self._size() - self._offset))

    def release(self, position: str) -> None:
        """Nothing: files are rotated by whoever writes them."""

    def tell(self, position: str) -> None:
        """Nothing: there is nobody to tell."""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _open(self) -> BinaryIO | None:
        if self._file is None:
            if self._size() < self._offset:
                raise LogPositionError(
                    f"{self._path.name} holds {self._size()} bytes, the snapshot continues at byte "
                    f"{self._offset}: the file was cut or replaced; restore it, or move the stream/ folder "
                    "of TOLLGATE_HOME away"
                )
            if not self._path.exists():
                return None
            self._file = self._path.open("rb")
            self._file.seek(self._offset)
        return self._file


def jsonl_appender(folder: Path, topic: str) -> tuple[Callable[[Sequence[Record]], None], Callable[[], None]]:
    """Functions that append (partition, payload) pairs, on disk when they return, and that close."""
    files: dict[int, BinaryIO] = {}

    def append(events: Sequence[Record]) -> None:
        lines: dict[int, list[bytes]] = {}
        for partition, payload, _ in events:
            # One event is one line: a newline inside broken bytes would make two of it.
            lines.setdefault(partition, []).append(payload.replace(b"\n", b" ") + b"\n")
        for partition, chunk in lines.items():
            file = files.get(partition)
            if file is None:
                folder.mkdir(parents=True, exist_ok=True)
                file = files[partition] = partition_file(folder, topic, partition).open("ab", buffering=0)
            file.write(b"".join(chunk))
            os.fsync(file.fileno())

    def close() -> None:
        for file in files.values():
            file.close()

    return append, close
