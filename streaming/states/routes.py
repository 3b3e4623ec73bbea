"""The key of each shard in the dataflow, which Bytewax routes and recovers by."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from fraud.features.entities import ENTITIES
from streaming.states.shard_batch import SHARD_KEYS, SHARDS

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

#: By index in `SHARD_KEYS`. Changing one orphans its shard's snapshots.
_BALANCED: Final = tuple(
    f"{entity.name}:{shard}.{_APPENDED[entity.name][shard]}" for entity in ENTITIES for shard in range(SHARDS)
)


def shard_routes(recovery: Path) -> tuple[str, ...]:
    """The dataflow's keys, by index in `SHARD_KEYS`, for the recovery store in the folder `recovery`.

    `SHARD_KEYS` were the keys once. They give two processes 28 and 20 shards, but a store that holds
    snapshots under them goes on with them: Bytewax finds a snapshot by its key only.
    """
    for part in recovery.glob("*.sqlite3"):
        with closing(sqlite3.connect(f"{part.absolute().as_uri()}?mode=ro", uri=True)) as store:
            if not {key for (key,) in store.execute("SELECT state_key FROM snaps")}.isdisjoint(SHARD_KEYS):
                return SHARD_KEYS
    return _BALANCED
