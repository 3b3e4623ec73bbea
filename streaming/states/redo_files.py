"""What happened since the states' bases, in files beside the recovery store.

A recovery snapshot is written whole at every interval, and most of it would be updates that the
snapshot before held too. So pieces of them go to files, one for all shards of a process every
`_EVERY_S`, and a snapshot names those that are on disk and holds those that are not yet.

A file has one name for each shard with a piece in it, a hard link. A shard removes its own names,
which say what base the piece follows: no process need know what the others still need, not even
after a restart with another number of them, and the file is gone with its last name.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from streaming.states.disk import Disk, digest_of
from streaming.states.snapshots import damaged_file, missing_file

#: Seconds of pieces that become one file, about.
_EVERY_S: Final = 0.5

#: Where a piece lies: the file's name for its shard, offset, length and digest.
PieceRef = tuple[str, int, int, bytes]


class Piece:
    """Packed updates of one shard, made after its base `generation`: bytes until they are on disk,
    then where they lie."""

    __slots__ = ("_ref", "_writing", "data", "generation")

    def __init__(self, generation: int, data: bytes, ref: PieceRef | None = None) -> None:
        self.generation = generation
        self.data = data
        self._ref = ref
        self._writing: Future[None] | None = None

    @classmethod
    def on_disk(cls, ref: PieceRef) -> Piece:
        return cls(_generation(ref[0]), b"", ref)

    def under_way(self, ref: PieceRef, writing: Future[None]) -> None:
        self._ref, self._writing = ref, writing

    def snapshot(self) -> bytes | PieceRef:
        """What a snapshot holds of the piece; raises what went wrong with its file."""
        if self._writing is not None and self._writing.done():
            self._writing.result()
            self._writing, self.data = None, b""
        return self.data or self._ref or b""


class RedoFiles:
    """The pieces of all shards of this process."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        #: Names are never used again, whatever a crashed run has left.
        self._run = f"{time.time_ns():x}-{os.getpid():x}"
        self._number = 0
        self._waiting: list[tuple[str, Piece]] = []
        self._since = 0.0

    def add(self, shard: str, generation: int, data: bytes) -> Piece:
        """A piece of `shard`, made after its base `generation`; soon on disk."""
        now = time.monotonic()
        if self._waiting and now - self._since >= _EVERY_S:
            self._write()
        if not self._waiting:
            self._since = now
        piece = Piece(generation, data)
        self._waiting.append((shard, piece))
        return piece

    def read(self, shard: str, ref: PieceRef) -> bytes:
        """The bytes of a piece; SnapshotError if its file is gone or damaged."""
        name, offset, length, check = ref
        path = self._folder_of(shard) / name
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        except FileNotFoundError:
            raise missing_file(path.name, str(path.parent)) from None
        if digest_of(data) != check:
            raise damaged_file(f"{path.parent.name}/{name}")
        return data

    def drop(self, shard: str, oldest: int) -> None:
        """Soon remove the pieces made before the base `oldest`: no snapshot to resume from names them."""
        folder = self._folder_of(shard)

        def work() -> None:
            for path in folder.glob("[!.]*"):
                if _generation(path.name) < oldest:
                    path.unlink(missing_ok=True)

        self._disk.do(work)

    def _write(self) -> None:
        """Begin to write what is waiting to one file."""
        waiting, self._waiting = self._waiting, []
        self._number += 1
        own = f"{self._run}-{self._number:08d}"
        names = {(shard, piece.generation): f"{piece.generation:08d}-{own}" for shard, piece in waiting}
        writing = self._disk.write(
            self._folder / own,
            lambda: b"".join([piece.data for _, piece in waiting]),
            names=[self._folder_of(shard) / name for (shard, _), name in names.items()],
        )
        offset = 0
        for shard, piece in waiting:
            size = len(piece.data)
            piece.under_way((names[shard, piece.generation], offset, size, digest_of(piece.data)), writing)
            offset += size

    def _folder_of(self, shard: str) -> Path:
        return self._folder / shard.replace(":", "-")


def _generation(name: str) -> int:
    return int(name.partition("-")[0])
