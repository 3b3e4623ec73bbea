"""Narrow rows of batch views that look at measures or attributes: computed from each row, in Spark's workers.

The same functions give the columns of an event here, in the stream and in the service (`stores.declared`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import cos, radians, sin
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import pyarrow as pa

from feature_repo.aggregates.profile import OF_PLACES, asks, columns_of
from feature_repo.aggregates.read import CARRIED, Widths
from feature_repo.declared_columns import declared_of
from fraud.declared.declaration import EVENT_TEXTS
from fraud.declared.figures import BatchView
from fraud.state.observation import stable_hash
from stores.declared import number_of, text_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_EVENT: Final = (*EVENT_TEXTS, "latitude", "longitude", "amount_reference", "attributes")
_ALIKE: Final = ("bucket", "seen", "tx", "known", "until")
_TYPES: Final[dict[str, tuple[str, pa.DataType]]] = {
    "view": ("int", pa.int32()), "shard": ("int", pa.int32()), "key": ("string", pa.string()),
    "category": ("string", pa.string()), "x": ("int", pa.int32()), "y": ("int", pa.int32()),
    "z": ("int", pa.int32()), "bucket": ("int", pa.int32()), "seen": ("int", pa.int32()),
    "amount": ("bigint", pa.int64()), "tx": ("bigint", pa.int64()), "known": ("int", pa.int32()),
    "until": ("int", pa.int32()), "number": ("double", pa.float64()), "value": ("bigint", pa.int64()),
    "flag": ("boolean", pa.bool_()),
}  # fmt: skip


def _type(name: str) -> tuple[str, pa.DataType]:
    return _TYPES[name.rstrip("0123456789")]


def measured_rows(
    both: DataFrame, views: dict[int, BatchView], shards: int, widths: Widths, document: bytes
) -> DataFrame:
    """As `feature_repo.aggregates.read.view_rows`, for columns that `document` declares."""
    names = (*CARRIED, *widths.names)
    schema = ", ".join(f"{name} {_type(name)[0]}" for name in names)
    return both.select(*_EVENT, *_ALIKE).mapInArrow(_worker(views, shards, names, document), schema)


def _worker(
    views: dict[int, BatchView], shards: int, names: tuple[str, ...], document: bytes
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        own = declared_of(document)
        schema = pa.schema([(name, _type(name)[1]) for name in names])
        for batch in batches:
            rows = batch.to_pylist()
            values = [own.row_values(row) for row in rows]
            for place, view in views.items():
                found = _rows_of(place, view, rows, values, shards)
                columns = [pa.array([row.get(name) for row in found], kind.type) for name, kind in
                           zip(names, schema, strict=True)]  # fmt: skip
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return work


def _rows_of(
    place: int, view: BatchView, rows: list[dict[str, Any]], values: list[dict[str, Any]], shards: int
) -> list[dict[str, Any]]:
    used, located = columns_of(view), asks(view, OF_PLACES)
    found = []
    for row, event in zip(rows, values, strict=True):
        value = event[view.key]
        if value is None:
            continue
        key = text_of(value)
        one = {name: row[name] for name in _ALIKE}
        one |= {
            "view": place,
            "shard": crc32(key.encode()) % shards,
            "key": key,
            "amount": row["amount_reference"],
        }
        if located:
            one |= zip("xyz", _direction(event["latitude"], event["longitude"]), strict=True)
        for index, name in enumerate(used.numbers):
            one[f"number{index}"] = number_of(event[name])
        for index, name in enumerate(used.values):
            one[f"value{index}"] = None if event[name] is None else stable_hash(text_of(event[name]))
        for index, name in enumerate(used.flags):
            one[f"flag{index}"] = event[name] is True
        found.append(one)
    return found


def _direction(latitude: float | None, longitude: float | None) -> tuple[int | None, ...]:
    """As `feature_repo.aggregates.read` has it: a point of the unit sphere in millionths."""
    if latitude is None or longitude is None:
        return None, None, None
    north, east = radians(latitude), radians(longitude)
    point = cos(north) * cos(east), cos(north) * sin(east), sin(north)
    return tuple([round(1e6 * value) for value in point])
