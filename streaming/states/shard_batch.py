"""What travels between the steps of the flow: updates for a shard, and states to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec
from msgspec import Struct

from fraud.declared.seen import declared_records
from fraud.features.entities import ENTITIES
from fraud.state.observation import read_records

#: Shards per entity: the unit of routing and of snapshots. Changing it orphans snapshots.
SHARDS: Final = 8

#: Name of each shard, by entity place * SHARDS + shard; its key in the dataflow: `streaming.states.routes`.
SHARD_KEYS: Final = tuple(f"{entity.name}:{shard}" for entity in ENTITIES for shard in range(SHARDS))


def shard_of(value: str) -> int:
    """The shard of an entity value, the same in every process."""
    return crc32(value.encode()) % SHARDS


class ShardBatch(Struct, gc=False):
    """Updates for one shard from one read: `values[i]` gets `seen[i]`, in order.

    `shard` is place * SHARDS + its number; what is seen are observations of `fraud.state.observation` for
    entities, of `fraud.declared.state` for declared views. `seeds` are packed states to merge first,
    `appended_ms` when the oldest event entered the log (wall clock, 0 if unknown), `source` the partition
    that was read, `replayed` whether it has just come to where its log ended when the flow started, `more`
    whether the log held more events than were read: a backlog, of which the next read comes at once. A batch
    that came from another process still has the bytes that it came as, `packed`. `rewrite` asks that every
    state of the shard be written to the online store again.
    """

    shard: int
    values: list[str]
    seen: list[Any]
    seeds: list[tuple[str, bytes]]
    appended_ms: int
    source: int = 0
    replayed: bool = False
    more: bool = False
    packed: bytes = b""
    rewrite: bool = False

    def __reduce__(self) -> tuple[Callable[[bytes, int, bool], ShardBatch], tuple[bytes, int, bool]]:
        """Pickle, which Bytewax uses between processes, as one compact message."""
        return ShardBatch.unpack, (self.pack(), self.source, self.more)

    def pack(self) -> bytes:
        """The batch as bytes, but `source` and `more`: of each observation what states look at."""
        records = b"".join([one.record for one in self.seen])
        replayed = _REWRITE if self.rewrite else self.source if self.replayed else _NONE
        return _encode((self.shard, self.values, records, self.seeds, self.appended_ms, replayed))

    @staticmethod
    def unpack(data: bytes, source: int = 0, more: bool = False) -> ShardBatch:
        """The batch that `pack` packed; its observations are good for `VelocityState.add` here only."""
        shard, values, records, seeds, appended_ms, replayed = _decode(data)
        place = shard // SHARDS
        seen: list[Any] = (
            list(read_records(place, records))
            if place < len(ENTITIES)
            else declared_records(records, len(values))
        )
        if known := replayed >= 0:
            source = replayed
        rewrite = replayed == _REWRITE
        return ShardBatch(shard, values, seen, seeds, appended_ms, source, known, more, data, rewrite)


_encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode
#: In a packed batch, in place of the partition that has been replayed.
_NONE: Final = -1
#: There too, of a batch that asks for all states.
_REWRITE: Final = -2
_Seeds = list[tuple[str, bytes]]
_decode: Final = msgspec.msgpack.Decoder(tuple[int, list[str], bytes, _Seeds, int, int]).decode


class Writes(NamedTuple):
    """Newest states of one shard's touched entities, to be written to the online store.

    `shard` is place * SHARDS + its number; no value is listed twice.
    """

    shard: int
    values: list[str]
    versions: list[int]
    states: list[bytes]
    appended_ms: int
