"""States that have not changed lately, in files beside the recovery store.

A recovery snapshot is written whole at every interval. With all states of a shard in it, a
second's worth of events would rewrite everything the shard knows. So a snapshot holds only
what changed since the shard's last *base*, a file with all of its states, and names that base.
Bases live in a folder that every process of the flow can read. The snapshot, which is signed, holds
a base's digest: whoever can write the folder changes no state.
"""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from streaming.states.disk import Disk, digest_of, write_synced
from streaming.states.snapshots import damaged_file, missing_file

#: Newest bases kept: a crash resumes from a snapshot at most a few intervals old.
_KEPT: Final = 3


class StateBases:
    """The base files of all shards."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def write(self, shard: str, generation: int, states: dict[str, bytes]) -> Future[bytes]:
        """Begin to write the base `generation` of `shard`; its digest, once it is on disk."""
        copy = dict(states)
        path = self._path(shard, generation)

        def work() -> bytes:
            data = msgspec.msgpack.encode(copy)
            write_synced(path, data)
            return digest_of(data)

        return self._disk.do(work)

    def drop(self, shard: str, generation: int) -> None:
        """Soon delete the base that no snapshot to resume from names, now that `generation` is the newest."""
        if generation > _KEPT:
            self._disk.do(partial(self._path(shard, generation - _KEPT).unlink, missing_ok=True))

    def read(self, shard: str, generation: int, digest: bytes) -> dict[str, bytes]:
        """The states in base `generation` of `shard`; SnapshotError if it is gone or another than was
        written."""
        path = self._path(shard, generation)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise missing_file(path.name, str(path.parent)) from None
        if digest_of(data) != digest:
            raise damaged_file(path.name)
        return msgspec.msgpack.decode(data, type=dict[str, bytes])

    def _path(self, shard: str, generation: int) -> Path:
        return self._folder / f"{shard.replace(':', '-')}.{generation:08d}"
