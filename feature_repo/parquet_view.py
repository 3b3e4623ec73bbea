"""A parquet view as a point-in-time join reads it, and its columns for the rows that were found.

The search (`feature_repo.newest_rows`) needs keys and times. The value columns are much wider, so
they are read afterwards, and taken for the rows that were found. A row that is no longer where
the search saw it is an error, never another row's values.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

Integers = npt.NDArray[np.signedinteger[Any]]
#: File of a row that does not exist, and number of a key that no row has.
NOWHERE: Final = -1
#: Decoded columns that a worker keeps for the next rows, which mostly need the same files.
CACHE_BYTES: Final = 512 << 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS: Final = pa.timestamp("us", tz="UTC")


class MovedRowsError(RuntimeError):
    """A view's files changed while a join was reading them."""


@dataclass(frozen=True, slots=True)
class ParquetView:
    """What a worker needs to know of a view.

    `keys` pairs each key column of the files with the entity rows' column, `columns` each value
    column with the output it becomes and its Arrow type; `event` and `known` are time columns of
    the files, `time` that of the entity rows. A `ttl_us` of zero means no limit (microseconds).
    `files` are addresses in order, each with the value of its folder's partition, and `partition`
    is the format of event time in it; a file without a value may hold rows of any time.
    """

    name: str
    time: str
    keys: tuple[tuple[str, str], ...]
    event: str
    known: str
    columns: tuple[tuple[str, str, pa.DataType], ...]
    ttl_us: int
    partition: str
    files: tuple[tuple[str, str], ...]

    def files_between(self, low: int, high: int) -> list[int]:
        """Numbers of the files with rows that entity rows between two times (microseconds) can see."""
        first = self._partition_of(low - self.ttl_us) if self.ttl_us else ""
        last = self._partition_of(high)
        return [number for number, (_, value) in enumerate(self.files) if not value or first <= value <= last]

    def _partition_of(self, time: int) -> str:
        return (_EPOCH + timedelta(microseconds=time)).strftime(self.partition)


@dataclass(frozen=True, slots=True)
class Found:
    """Where the newest row of each entity row lies: number of the file (or `NOWHERE`), row in it,
    and its event time in microseconds."""

    file: Integers
    row: Integers
    event: Integers

    @classmethod
    def nowhere(cls, rows: int) -> Found:
        return cls(*[np.full(rows, NOWHERE, np.int64) for _ in range(3)])

    def slice(self, at: int, length: int) -> Found:
        part = slice(at, at + length)
        return Found(self.file[part], self.row[part], self.event[part])


def fetch(view: ParquetView, found: Found, asked: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The view's outputs for the entity rows `asked`, null where nothing was found."""
    at = np.flatnonzero(found.file != NOWHERE)
    if not at.size:
        return {output: pa.nulls(asked.num_rows, kind) for _, output, kind in view.columns}
    # In order of files and rows, every file is read once.
    at = at[np.lexsort((found.row[at], found.file[at]))]
    file, row = found.file[at], found.row[at]
    starts = np.flatnonzero(np.diff(file, prepend=NOWHERE))
    parts = []
    for low, high in zip(starts, [*starts[1:], at.size], strict=True):
        part = _wide(view, int(file[low]))
        if row[high - 1] >= part.num_rows:
            raise MovedRowsError(_moved(view))
        parts.append(part.take(pa.array(row[low:high])))
    got = pa.concat_tables(parts).combine_chunks()
    _check(view, found.event[at], asked.take(pa.array(at)), got)
    back = np.zeros(asked.num_rows, dtype=np.int64)
    back[at] = np.arange(at.size)
    places = pa.array(back, mask=found.file == NOWHERE)
    return {output: got.column(name).take(places) for name, output, _ in view.columns}


def read_columns(view: ParquetView, number: int, names: tuple[str, ...]) -> pa.Table:
    """Those of the columns `names` that the file `number` has."""
    address = view.files[number][0]
    parts = urlsplit(address)
    if parts.scheme in ("", "file"):
        system, path = pafs.LocalFileSystem(), unquote(parts.path)
    else:
        system, path = pafs.FileSystem.from_uri(address)
    try:
        with pq.ParquetFile(path, filesystem=system) as file:
            return file.read(columns=list(dict.fromkeys(names)), use_threads=False)
    except FileNotFoundError:
        raise MovedRowsError(_moved(view)) from None


def microseconds(times: pa.ChunkedArray | pa.Array) -> pa.Int64Array:
    """Times as integers: microseconds since 1970 UTC."""
    whole = times.cast(_MICROSECONDS).cast(pa.int64())
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole


class _Cache:
    """Tables by name, the least recently used forgotten first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._tables: OrderedDict[tuple[str, tuple[str, ...]], tuple[int, pa.Table]] = OrderedDict()
        self._bytes = 0

    def get(self, name: tuple[str, tuple[str, ...]]) -> pa.Table | None:
        if name not in self._tables:
            return None
        self._tables.move_to_end(name)
        return self._tables[name][1]

    def put(self, name: tuple[str, tuple[str, ...]], table: pa.Table) -> None:
        size = table.nbytes
        self._tables[name] = size, table
        self._bytes += size
        while self._bytes > self._most and len(self._tables) > 1:
            self._bytes -= self._tables.popitem(last=False)[1][0]


#: One per worker process: Spark's workers live on from task to task.
_cache = _Cache(CACHE_BYTES)


def _check(view: ParquetView, events: Integers, asked: pa.Table, got: pa.Table) -> None:
    """Every fetched row has the key and the event time that the search saw."""
    same = [bool((microseconds(got.column(view.event)).to_numpy() == events).all())]
    same += [
        pc.all(pc.equal(got.column(name), asked.column(asking).cast(pa.string()))).as_py()
        for name, asking in view.keys
    ]
    if not all(same):
        raise MovedRowsError(_moved(view))


def _moved(view: ParquetView) -> str:
    return f"the files of {view.name} changed while they were read: run the join again"


def _wide(view: ParquetView, number: int) -> pa.Table:
    """Keys, event time and value columns of one file, from this worker's cache or the file itself."""
    names = (*[name for name, _ in view.keys], view.event, *[name for name, _, _ in view.columns])
    address = view.files[number][0]
    table = _cache.get((address, names))
    if table is None:
        table = _conformed(view, read_columns(view, number, names))
        _cache.put((address, names), table)
    return table


def _conformed(view: ParquetView, table: pa.Table) -> pa.Table:
    """`table` with the types that the view declares, whatever the file's writer chose; a column that
    an older file lacks is null."""
    columns = {name: table.column(name).cast(pa.string()) for name, _ in view.keys}
    columns[view.event] = table.column(view.event).cast(_MICROSECONDS)
    for name, _, kind in view.columns:
        known = name in table.column_names
        columns[name] = table.column(name).cast(kind) if known else pa.nulls(table.num_rows, kind)
    return pa.table(columns).combine_chunks()
