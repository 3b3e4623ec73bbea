"""States that have not changed lately, in files beside the recovery store.

A recovery snapshot is written whole at every interval. With all states of a shard in it, a
second's worth of events would rewrite everything the shard knows. So a snapshot holds only
what changed since the shard's last *base*, a file with all of its states, and names that base.
Bases live in a folder that every process of the flow can read.
"""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from streaming.states.disk import Disk
from streaming.states.snapshots import damaged_file, missing_file

#: Newest bases kept: a crash resumes from a snapshot at most a few intervals old.
_KEPT: Final = 3


class StateBases:
    """The base files of all shards."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def write(self, shard: str, generation: int, states: dict[str, bytes]) -> Future[None]:
        """Begin to write the base `generation` of `shard`; done once it is on disk."""
        copy = dict(states)

        def content() -> bytes:
            data = msgspec.msgpack.encode(copy)
            return crc32(data).to_bytes(4, "little") + data

        return self._disk.write(self._path(shard, generation), content)

    def drop(self, shard: str, generation: int) -> None:
        """Soon delete the base that no snapshot to resume from names, now that `generation` is the newest."""
        if generation > _KEPT:
            self._disk.do(partial(self._path(shard, generation - _KEPT).unlink, missing_ok=True))

    def read(self, shard: str, generation: int) -> dict[str, bytes]:
        """The states in base `generation` of `shard`; SnapshotError if it is gone or damaged."""
        path = self._path(shard, generation)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise missing_file(path.name, str(path.parent)) from None
        if crc32(data[4:]).to_bytes(4, "little") != data[:4]:
            raise damaged_file(path.name)
        return msgspec.msgpack.decode(data[4:], type=dict[str, bytes])

    def _path(self, shard: str, generation: int) -> Path:
        return self._folder / f"{shard.replace(':', '-')}.{generation:08d}"
