"""What travels between the steps of the flow: updates for a shard, and states to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec
from msgspec import Struct

from fraud.entities import ENTITIES
from fraud.observation import Observation

#: Shards per entity: the unit of routing and of snapshots. Changing it orphans snapshots.
SHARDS: Final = 8

#: Key of each shard in the dataflow, by entity place * SHARDS + shard.
SHARD_KEYS: Final = tuple(f"{entity.name}:{shard}" for entity in ENTITIES for shard in range(SHARDS))


def shard_of(value: str) -> int:
    """The shard of an entity value, the same in every process."""
    return crc32(value.encode()) % SHARDS


class ShardBatch(Struct, gc=False):
    """Updates for one shard from one read: `values[i]` gets `seen[i]`, in order.

    `shard` is its index in `SHARD_KEYS`, `seeds` are packed states to merge first, `appended_ms` when the
    oldest event entered the log (wall clock, 0 if unknown), `reached` the partition that has
    just replayed everything that its log held when the flow started (-1: none).
    """

    shard: int
    values: list[str]
    seen: list[Observation]
    seeds: list[tuple[str, bytes]]
    appended_ms: int
    reached: int = -1

    def __reduce__(self) -> tuple[Callable[[bytes], ShardBatch], tuple[bytes]]:
        """Pickle, which Bytewax uses between processes, as one compact message."""
        return _decode, (_encode(self),)


_encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(ShardBatch)


def _decode(data: bytes) -> ShardBatch:
    return _decoder.decode(data)


class Writes(NamedTuple):
    """Newest states of one shard's touched entities, to be written to the online store."""

    place: int
    values: list[str]
    versions: list[int]
    states: list[bytes]
    appended_ms: int
