"""The key of each shard in the dataflow, which Bytewax routes and recovers by."""

from __future__ import annotations

from typing import Final

from fraud.features.entities import ENTITIES
from streaming.states.shard_batch import SHARDS

#: What is appended to a shard's key, by entity and shard: the least number that Bytewax' hash gives the
#: worker wanted out of 24. Of an entity's 8 shards, 2, 4 and 8 processes get equally many and 3 get 3, 3
#: and 2; of all 48, 3 and 6 do too. A test finds the numbers again.
_APPENDED: Final = {
    "customer": (2, 16, 28, 34, 3, 2, 0, 19),
    "card": (45, 18, 6, 55, 14, 23, 12, 47),
    "merchant": (41, 0, 18, 3, 11, 12, 14, 21),
    "terminal": (26, 7, 0, 19, 61, 1, 33, 44),
    "device": (58, 21, 11, 39, 41, 18, 52, 32),
    "ip": (48, 26, 14, 11, 17, 28, 58, 35),
}

#: The dataflow's keys, by index in `SHARD_KEYS`. Changing one orphans its shard's snapshots: raise
#: `SNAPSHOT_VERSION` with it.
ROUTES: Final = tuple(
    f"{entity.name}:{shard}.{_APPENDED[entity.name][shard]}" for entity in ENTITIES for shard in range(SHARDS)
)
