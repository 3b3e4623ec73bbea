"""Sorting a history larger than memory: rows wait on disk by date, and come back in order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather

from stores.lake import epoch_us

_DAY_US: Final = 86_400_000_000
#: Rows held in memory before they are put on disk (about 200 bytes each).
BUFFERED_ROWS: Final = 1_000_000


class DayStage:
    """Collects tables in any order of `event_timestamp` and yields one sorted table per date.

    Rows of the same time keep the order in which they came. Memory: `BUFFERED_ROWS` rows and
    one date.
    """

    def __init__(self, folder: Path, buffered_rows: int = BUFFERED_ROWS) -> None:
        self._folder = folder
        self._limit = buffered_rows
        self._buffer: list[pa.Table] = []
        self._buffered = 0
        self._parts: dict[int, int] = {}

    def add(self, table: pa.Table) -> None:
        """Keep the rows of `table`."""
        self._buffer.append(table)
        self._buffered += table.num_rows
        if self._buffered >= self._limit:
            self._spill()

    def days(self) -> Iterator[pa.Table]:
        """One table per UTC date, oldest first, by event time; the stage is empty afterwards."""
        self._spill()
        for day in sorted(self._parts):
            parts = [feather.read_table(self._path(day, part)) for part in range(self._parts[day])]
            table = pa.concat_tables(parts).combine_chunks()
            order = np.argsort(epoch_us(table.column("event_timestamp")), kind="stable")
            yield table.take(pa.array(order))
        shutil.rmtree(self._folder, ignore_errors=True)
        self._parts.clear()

    def _spill(self) -> None:
        if not self._buffered:
            return
        table = pa.concat_tables(self._buffer)
        self._buffer, self._buffered = [], 0
        days = epoch_us(table.column("event_timestamp")) // _DAY_US
        if np.any(days[1:] < days[:-1]):
            order = np.argsort(days, kind="stable")
            table, days = table.take(pa.array(order)), days[order]
        distinct, first = np.unique(days, return_index=True)
        bounds = [*first.tolist(), table.num_rows]
        for place, day in enumerate(distinct.tolist()):
            part = self._parts.get(day, 0)
            self._parts[day] = part + 1
            path = self._path(day, part)
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = table.slice(bounds[place], bounds[place + 1] - bounds[place])
            feather.write_feather(rows, path, compression="lz4")

    def _path(self, day: int, part: int) -> Path:
        return self._folder / str(day) / f"{part}.arrow"


class SeenIds:
    """Which transaction ids have come before, as 64-bit hashes (8 bytes an id).

    Two different ids share a hash with a probability of about n² / 2^65: one in ten million for
    two million rows.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray[Any, np.dtype[np.uint64]]] = []

    def repeated(self, ids: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark every id of `ids` (no nulls) that came before, here or in an earlier call."""
        hashes = pd.util.hash_array(ids.to_numpy(zero_copy_only=False), categorize=False)
        fresh, first = np.unique(hashes, return_index=True)
        repeated = np.ones(len(hashes), dtype=bool)
        repeated[first] = False
        for run in self._runs:
            place = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            repeated |= run[place] == hashes
        if fresh.size:
            self._runs.append(fresh)
        # Runs of similar size are merged, so that there are never more than a few dozen.
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.union1d(self._runs[-1], last)
        return repeated
