"""The as-of search in a worker: where each entity row's newest row of a parquet view lies.

Files of a view follow event time. So whoever joins a run of entity rows needs the files of that
run and of the time to live before it, and of these keys and times only: entity rows go to the
files, and the view's rows, of which there are far more, are spared a shuffle and a sort.

What is found is what Feast's definition asks for: the newest event time among rows with event and
known-at at or before the entity's timestamp, nothing older than the ttl, edge included. Of rows
equal in both times, which are the same fact twice, the last one counts, in order of file and row.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.parquet_view import NOWHERE, Found, Integers, ParquetView, microseconds, read_columns

Flags = npt.NDArray[np.bool_]
#: Longer ago than any time.
_NEVER: Final = -(1 << 62)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a view, in columns: number of the key, the moment from which the row can be seen (it
    is valid and known then), event and known-at time (microseconds), number of the file, row in it."""

    key: Integers
    seen: Integers
    event: Integers
    known: Integers
    file: Integers
    row: Integers

    @classmethod
    def none(cls) -> _Rows:
        few, many = np.empty(0, np.int32), np.empty(0, np.int64)
        return cls(few, many, many, many, few, few)

    def __len__(self) -> int:
        return self.key.size

    @classmethod
    def together(cls, parts: list[_Rows]) -> _Rows:
        return cls(*[np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)])

    def take(self, places: Integers | Flags) -> _Rows:
        return _Rows(*[getattr(self, each.name)[places] for each in fields(self)])


class NewestRows:
    """The newest row of one view for entity rows that come in batches.

    Batches in order of time cost least: every file is read once, and of the rows that all later
    batches see, one a key is kept. A batch of an earlier time begins anew.
    """

    def __init__(self, view: ParquetView) -> None:
        self._view = view
        self._begin()

    def find(self, batch: pa.RecordBatch | pa.Table) -> Found:
        """Where the newest row of each row of `batch` lies."""
        view = self._view
        times = microseconds(batch.column(view.time))
        keys = _as_text([batch.column(asking) for _, asking in view.keys])
        asking = np.flatnonzero(pc.and_(times.is_valid(), keys.is_valid()).to_numpy(zero_copy_only=False))
        found = Found.nowhere(batch.num_rows)
        if not asking.size:
            return found
        at = pa.array(asking)
        time = times.take(at).to_numpy()
        self._move(int(time.min()), int(time.max()))
        rows = self._rows
        seen = _last_seen(rows, self._numbers(keys.take(at)), time)
        hit = np.flatnonzero(seen != NOWHERE)
        place = self._newest[seen[hit]]
        if view.ttl_us:
            fresh = rows.event[place] >= time[hit] - view.ttl_us
            hit, place = hit[fresh], place[fresh]
        for name in ("file", "row", "event"):
            getattr(found, name)[asking[hit]] = getattr(rows, name)[place]
        return found

    def _begin(self) -> None:
        self._keys = pa.array([], pa.string())
        self._read: set[int] = set()
        self._since = _NEVER
        self._keep(_Rows.none())

    def _move(self, low: int, high: int) -> None:
        """Hold the rows that entity rows from `low` to `high` can see."""
        if low < self._since:
            self._begin()
        view = self._view
        missing = [number for number in view.files_between(low, high) if number not in self._read]
        if not missing and low == self._since:
            return
        self._read.update(missing)
        kept = self._rows.take(self._needed(low))
        self._since = low
        self._keep(_Rows.together([kept, self._load(missing)]) if missing else kept)

    def _keep(self, rows: _Rows) -> None:
        """Order `rows` by key and the moment they can be seen; note the newest so far of each."""
        rows = rows.take(np.lexsort((rows.seen, rows.key)))
        self._rows = rows
        self._newest = np.arange(len(rows))
        same = rows.key[1:] == rows.key[:-1]
        older = (rows.event[1:] < rows.event[:-1]) | (
            (rows.event[1:] == rows.event[:-1]) & (rows.known[1:] < rows.known[:-1])
        )
        if (same & older).any():  # something was corrected, or came late
            order = np.lexsort((rows.known, rows.event, rows.key))
            rank = np.empty_like(order)
            rank[order] = np.arange(len(rows))
            self._newest = order[np.maximum.accumulate(rank)]

    def _needed(self, low: int) -> Integers:
        """Places of the rows that a reader at `low` or later may see: one a key, and the later ones."""
        rows = self._rows
        later = rows.seen > low
        last = ~later
        last[:-1] &= (rows.key[1:] != rows.key[:-1]) | later[1:]
        newest = self._newest[last]
        if self._view.ttl_us:
            newest = newest[rows.event[newest] >= low - self._view.ttl_us]
        return np.concatenate([newest, np.flatnonzero(later)])

    def _load(self, files: list[int]) -> _Rows:
        view = self._view
        names = [name for name, _ in view.keys]
        tables = [read_columns(view, number, (*names, view.event, view.known)) for number in files]
        table = pa.concat_tables(tables, promote_options="permissive")  # writers differ in units of time
        event, known = (microseconds(table.column(name)) for name in (view.event, view.known))
        keys = _as_text([table.column(name) for name in names])
        sizes = [part.num_rows for part in tables]
        file = np.repeat(np.array(files, np.int32), sizes)
        row = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
        whole = pc.and_(pc.and_(event.is_valid(), known.is_valid()), keys.is_valid())
        if not pc.all(whole).as_py():  # comparisons with null are never true: such rows match nothing
            event, known, keys = (column.filter(whole) for column in (event, known, keys))
            kept = whole.to_numpy(zero_copy_only=False)
            file, row = file[kept], row[kept]
        times = event.to_numpy(), known.to_numpy()
        return _Rows(self._numbers(keys, add=True), np.maximum(*times), *times, file, row)

    def _numbers(self, keys: pa.StringArray, *, add: bool = False) -> Integers:
        """The numbers of `keys`; of one that no row has `NOWHERE`, or a new one with `add`."""
        coded = keys.dictionary_encode()
        number = pc.index_in(coded.dictionary, value_set=self._keys)
        if add and number.null_count:
            self._keys = pa.concat_arrays([self._keys, coded.dictionary.filter(number.is_null())])
            number = pc.index_in(coded.dictionary, value_set=self._keys)
        numbers: Integers = number.fill_null(NOWHERE).to_numpy()[coded.indices.to_numpy()]
        return numbers


def _last_seen(rows: _Rows, keys: Integers, times: Integers) -> Integers:
    """Per key and time, the place of the last of the key's `rows` that can be seen then, or `NOWHERE`."""
    if not len(rows):
        return np.full(keys.size, NOWHERE)
    starts = np.searchsorted(rows.key, np.arange(rows.key[-1] + 2))
    known = np.minimum(np.where(keys >= 0, keys, starts.size - 1), starts.size - 1)
    first = starts[known]
    low, high = first.copy(), starts[np.minimum(known + 1, starts.size - 1)]
    while (undecided := low < high).any():
        middle = (low + high) >> 1
        seen = undecided & (rows.seen[np.minimum(middle, len(rows) - 1)] <= times)
        low = np.where(seen, middle + 1, low)
        high = np.where(undecided & ~seen, middle, high)
    return np.where(low > first, low - 1, NOWHERE)


def _as_text(columns: list[pa.ChunkedArray | pa.Array]) -> pa.StringArray:
    """The values of several key columns as one, null where any is; no two differ and read alike."""
    texts = [column.cast(pa.string()) for column in columns]
    texts = [text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text for text in texts]
    if len(texts) == 1:
        return texts[0]
    parts = [part for text in texts for part in (pc.utf8_length(text).cast(pa.string()), text)]
    return pc.binary_join_element_wise(*parts, ":")
