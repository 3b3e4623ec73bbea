"""Wide columns of parquet views, fetched only for the rows that a point-in-time join has found.

The join itself needs keys and times. Carrying states and profiles through its shuffle and sort
would move every row of a view, though most match nothing; so the join carries each row's place
(file and row number, as Spark's reader reports them) and a worker reads the columns afterwards.
A row that is no longer where the join saw it is an error, never another row's values.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

#: Decoded columns that a worker keeps for the next rows, which mostly need the same files.
CACHE_BYTES: Final = 512 << 20


class MovedRowsError(RuntimeError):
    """A view's files changed while a join was reading them."""


@dataclass(frozen=True, slots=True)
class LateColumns:
    """What a worker needs to fetch a view's columns.

    `keys` pairs each key column of the files with the entity rows' column, `columns` each value
    column with the output it becomes and its Arrow type. `files` maps the hash of a file's
    address to the address. The joined rows hold the place in the columns named by `place`.
    """

    view: str
    event: str
    keys: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str, pa.DataType], ...]
    files: dict[int, str]

    @property
    def place(self) -> tuple[str, str, str]:
        """Columns of the joined rows: hash of the file, row in it, event time in microseconds."""
        return f"__{self.view}_file", f"__{self.view}_row", f"__{self.view}_event"


def place_columns(event: str) -> list[Column]:
    """The place of each row of a parquet scan, in the order of `LateColumns.place`."""
    from pyspark.sql import functions as F

    return [
        F.xxhash64("_metadata.file_path"),
        F.col("_metadata.row_index"),
        F.unix_micros(F.col(event)),
    ]


def hashed_files(scans: Sequence[DataFrame]) -> dict[int, str]:
    """The files of parquet scans by the hash that `place_columns` gives them."""
    from pyspark.sql import functions as F

    # A scan writes a local file as file:/x, the list of its files as file:///x.
    spelled = {
        spelling: address
        for rows in scans
        for address in rows.inputFiles()
        for spelling in (address, address.replace("file:///", "file:/", 1))
    }
    if not spelled:
        return {}
    frame = scans[0].sparkSession.createDataFrame([(each,) for each in spelled], "address string")
    hashed = {row[1]: spelled[row[0]] for row in frame.select("address", F.xxhash64("address")).collect()}
    if len(hashed) != len(spelled):
        raise ValueError("two files of the views have the same hash: rename one of them")
    return hashed


def fetch(late: LateColumns, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The view's outputs for the joined rows of `table`, null where the join found nothing."""
    files, rows = (table.column(name) for name in late.place[:2])
    found = np.flatnonzero(pc.is_valid(files).to_numpy())
    if not found.size:
        return {output: pa.nulls(table.num_rows, kind) for _, output, kind in late.columns}
    at = pa.array(found)
    file_of, row_of = (column.take(at).to_numpy() for column in (files, rows))
    order = np.lexsort((row_of, file_of))
    starts = np.flatnonzero(np.diff(file_of[order], prepend=file_of[order[0]] - 1))
    parts = []
    for low, high in zip(starts, [*starts[1:], order.size], strict=True):
        part = _read(late, late.files[int(file_of[order[low]])])
        wanted = row_of[order[low:high]]
        if wanted[-1] >= part.num_rows:
            raise MovedRowsError(_moved(late))
        parts.append(part.take(pa.array(wanted)))
    got = pa.concat_tables(parts).combine_chunks()
    # `got` is in the order of files and rows; `back` says where each joined row's values lie.
    back = np.empty(table.num_rows, dtype=np.int64)
    back[found[order]] = np.arange(order.size)
    _check(late, table.take(pa.array(found[order])), got)
    missing = np.ones(table.num_rows, dtype=bool)
    missing[found] = False
    places = pa.array(back, mask=missing)
    return {output: got.column(name).take(places) for name, output, _ in late.columns}


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


def _check(late: LateColumns, asked: pa.Table, got: pa.Table) -> None:
    """Every fetched row has the key and the event time that the join saw."""
    times = got.column(late.event).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    same = [pc.all(pc.equal(times, asked.column(late.place[2])))]
    same += [
        pc.all(pc.equal(got.column(name).cast(pa.string()), asked.column(asking).cast(pa.string())))
        for name, asking in late.keys
    ]
    if not all(each.as_py() for each in same):
        raise MovedRowsError(_moved(late))


def _moved(late: LateColumns) -> str:
    return f"the files of {late.view} changed while they were read: run the join again"


def _read(late: LateColumns, address: str) -> pa.Table:
    """The columns of one file, from this worker's cache or the file itself."""
    names = (*[name for name, _ in late.keys], late.event, *[name for name, _, _ in late.columns])
    table = _cache.get((address, names))
    if table is None:
        parts = urlsplit(address)
        if parts.scheme in ("", "file"):
            system, path = pafs.LocalFileSystem(), unquote(parts.path)
        else:
            system, path = pafs.FileSystem.from_uri(address)
        try:
            with pq.ParquetFile(path, filesystem=system) as file:
                table = _conformed(late, file.read(columns=list(names), use_threads=False))
        except FileNotFoundError:
            raise MovedRowsError(_moved(late)) from None
        _cache.put((address, names), table)
    return table


def _conformed(late: LateColumns, table: pa.Table) -> pa.Table:
    """`table` with the types that the view declares; a column that an older file lacks is null."""
    columns = {name: table.column(name) for name in (*[name for name, _ in late.keys], late.event)}
    for name, _, kind in late.columns:
        known = name in table.column_names
        columns[name] = table.column(name).cast(kind) if known else pa.nulls(table.num_rows, kind)
    return pa.table(columns).combine_chunks()
