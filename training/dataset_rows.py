"""Which rows a training set has: transactions of the lake with their labels and request fields.

A row's `event_timestamp`, by which rows are chosen and at which features are joined, is when the
transaction was decided: its `created_timestamp` in the lake. The time that counts, at which windows
end, is a request field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from feature_repo.declared_columns import declared_of
from feature_repo.velocity_log import LATEST_ARRIVAL
from fraud.declared.declaration import EVENT_TEXTS, Declarations, encode
from fraud.features.entities import ENTITIES
from fraud.features.request import REQUEST_FIELDS, request_columns
from stores.declared import Declared, declared, event_columns
from stores.expressions import Expression
from stores.labels import strength
from stores.lake_files import files_of_date
from stores.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: The order of rows: event time, then id.
ORDER: Final = ("event_timestamp", "transaction_id")
KEYS: Final = tuple([entity.key for entity in ENTITIES])
#: Columns for slices, alerts and money, beside the features.
DESCRIPTIVE: Final = (*KEYS, "channel", "merchant_category", "country", "currency", "amount_reference")
#: Columns of entity rows that have another name in the lake.
_AS_OF: Final = {"event_timestamp": "created_timestamp"}
#: The entity rows have their own name for it: it is a request field of the on-demand view too.
_CARRIED: Final = tuple([name for name in DESCRIPTIVE if name not in REQUEST_FIELDS])
_TRANSACTIONS: Final = (
    "transaction_id string, event_timestamp timestamp, created_timestamp timestamp, "
    + ", ".join(f"{key} string" for key in KEYS)
    + ", amount_reference bigint, currency string, channel string, merchant_category string, country string, "
    "latitude double, longitude double, ingest_seq bigint, attributes string, lateness_ms bigint"
)
_LABELS: Final = "transaction_id string, created_timestamp timestamp, is_fraud boolean, source string"
_LABELLED: Final = "is_fraud boolean, label_mature boolean, weight double"
#: What a row of the lake or of the decision log tells of its event.
_EVENT: Final = (*EVENT_TEXTS, "latitude", "longitude", "amount_reference", "attributes")
LABEL_COLUMNS: Final = ("is_fraud", "label_mature", "weight")


def entity_rows(
    spark: SparkSession, start: datetime, end: datetime, as_of: datetime, keep: float, seed: int
) -> DataFrame:
    """Entity rows decided in ``[start, end)``: keys, request fields, label, weight.

    Genuine rows stay with probability `keep`, decided by a hash of `seed` and the id.
    """
    from pyspark.sql import functions as F

    rows = labelled(spark, start, end, as_of)
    if keep < 1.0:
        # The top 52 bits of the hash as a number in [0, 1).
        drawn = F.shiftrightunsigned(F.xxhash64(F.lit(seed), "transaction_id"), 12) / F.lit(float(1 << 52))
        rows = rows.where(F.col("is_fraud") | (drawn < keep))
    rows = rows.withColumn("weight", F.when(F.col("is_fraud"), 1.0).otherwise(1.0 / keep))
    kinds = {"event_timestamp": "timestamp", "transaction_id": "string"}
    described = [f"{name} {kinds.get(name, 'string')}" for name in (*ORDER, *_CARRIED)]
    declarations = declared().declarations
    own = [f"{name} {kind}" for name, kind in own_columns(declarations).items()]
    schema = ", ".join([*described, *[f"{name} bigint" for name in REQUEST_FIELDS], *own, _LABELLED])
    return rows.mapInArrow(_with_request_fields(encode(declarations)), schema)


def own_columns(declarations: Declarations) -> dict[str, str]:
    """Columns of the event that own features look at, beside those that every entity row has, with their
    Spark types; none where nothing is declared."""
    if not declarations.order:
        return {}
    names = {name for each in declarations.expressions for name in Expression(each.expression).variables}
    names |= {each.name for each in declarations.attributes if each.kind != "text"}
    names |= {view.key for view in declarations.streams} | {view.key for view in declarations.tables}
    numbers, texts = event_columns(declarations)
    flags = {each.name for each in declarations.attributes if each.kind == "flag"}
    kinds = {"attributes": "string", "latitude": "double", "longitude": "double"}
    for name in sorted(names - kinds.keys() - {*ORDER, *_CARRIED, *REQUEST_FIELDS}):
        if name in numbers | texts | flags:
            kinds[name] = "double" if name in numbers else "boolean" if name in flags else "string"
    return kinds


def _own(table: pa.Table, own: Declared) -> dict[str, pa.Array]:
    """The `own_columns` of lake rows."""
    kinds = own_columns(own.declarations)
    if not kinds:
        return {}
    rows = [own.row_values(row) for row in table.select([*_EVENT]).to_pylist()]
    types = {"string": pa.string(), "double": pa.float64(), "boolean": pa.bool_()}
    made = {
        name: pa.array([row[name] for row in rows], types[kind])
        for name, kind in kinds.items()
        if name != "attributes"
    }
    return {"attributes": table.column("attributes").combine_chunks().cast(pa.string()), **made}


def entity_table(transactions: pa.Table) -> pa.Table:
    """Entity rows of `transactions` (lake columns): id, time, keys and request fields."""
    columns = {name: transactions.column(_AS_OF.get(name, name)) for name in (*ORDER, *_CARRIED)}
    return pa.table({**columns, **_request(transactions), **_own(transactions, declared())})


def thinning(
    spark: SparkSession, start: datetime, end: datetime, as_of: datetime, negatives: int | None
) -> float:
    """The share of genuine rows to keep so that about `negatives` remain; 1.0 keeps all."""
    if negatives is None:
        return 1.0
    genuine = labelled(spark, start, end, as_of).where("not is_fraud").count()
    return min(1.0, negatives / genuine) if genuine else 1.0


def labelled(spark: SparkSession, start: datetime, end: datetime, as_of: datetime) -> DataFrame:
    """Transactions decided in ``[start, end)``, once each, with `is_fraud` and `label_mature` as known at
    `as_of`.

    Of a transaction delivered twice the first arrival stands; of several labels the latest,
    (`stores.labels`: the newest verdict of the strongest source).
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    rows = _read(spark, "transactions", _TRANSACTIONS, start - LATEST_ARRIVAL, end)
    time = F.col("created_timestamp")
    rows = rows.where((time >= F.lit(start)) & (time < F.lit(end)) & (time <= F.lit(as_of)))
    first = Window.partitionBy("transaction_id").orderBy("created_timestamp", "ingest_seq")
    rows = rows.withColumn("arrival", F.row_number().over(first)).where("arrival = 1")
    known = _read(spark, "labels", _LABELS, None, as_of + timedelta(days=1))
    latest = (
        known.where(F.col("created_timestamp") <= F.lit(as_of))
        .groupBy("transaction_id")
        .agg(
            F.max(
                F.struct(strength(F.col("source")).alias("strength"), "created_timestamp", "is_fraud")
            ).alias("label")
        )
        .select("transaction_id", F.col("label.is_fraud").alias("is_fraud"))
    )
    mature = as_of - timedelta(days=settings().history.label_maturity_days)
    return (
        rows.join(F.broadcast(latest), "transaction_id", "left")
        .withColumn("is_fraud", F.coalesce("is_fraud", F.lit(False)))
        .withColumn("label_mature", time <= F.lit(mature))
    )


def transaction_folders(start: datetime, end: datetime) -> list[str]:
    """Date folders of the lake with transactions that may have been decided in ``[start, end)``."""
    return _folders("transactions", start - LATEST_ARRIVAL, end)


def _folders(kind: str, start: datetime | None, end: datetime) -> list[str]:
    first = start.astimezone(UTC).date() if start else date.min
    last = (end.astimezone(UTC) - timedelta(microseconds=1)).date()
    return [
        str(folder)
        for folder in sorted((settings().lake / kind).glob("date=*"))
        if first <= date.fromisoformat(folder.name.removeprefix("date=")) <= last
        and next(folder.glob("[!._]*.parquet"), None) is not None
    ]


def _read(spark: SparkSession, kind: str, schema: str, start: datetime | None, end: datetime) -> DataFrame:
    """`kind` of the lake, its date folders from `start` until `end`."""
    files = [str(path) for folder in _folders(kind, start, end) for path in files_of_date(Path(folder))]
    return spark.read.schema(schema).parquet(*files) if files else spark.createDataFrame([], schema)


def _with_request_fields(
    document: bytes,
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What Spark's workers add to rows; the declarations go with it, since a worker has no home."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _completed(batches, document)

    return work


def _completed(batches: Iterator[pa.RecordBatch], document: bytes) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        columns = {name: batch.column(_AS_OF.get(name, name)) for name in (*ORDER, *_CARRIED)}
        columns |= _request(pa.Table.from_batches([batch]))
        columns |= _own(pa.Table.from_batches([batch]), declared_of(document))
        columns |= {name: batch.column(name) for name in LABEL_COLUMNS}
        yield pa.RecordBatch.from_pydict(columns)


def _request(table: pa.Table) -> dict[str, pa.Array]:
    """The on-demand view's request fields of lake rows."""
    names = (*KEYS, "channel", "merchant_category", "country", "currency", "latitude", "longitude")
    lists = {name: table.column(name).to_pylist() for name in names}
    times = table.column("event_timestamp").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    arrays = {
        "lateness_ms": table.column("lateness_ms").to_pylist(),
        "event_timestamp": times.to_numpy(),
        "amount_reference": table.column("amount_reference").to_numpy(),
    }
    found = request_columns({**lists, **arrays})
    return {name: pa.array(found[name].astype(np.int64)) for name in REQUEST_FIELDS}
