"""From the lake to one narrow row per batch view and transaction, reading only the dates that count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from feature_repo.aggregates.frame import LEFT, TAKEN, Peers
from feature_repo.aggregates.grid import HALF, INTERVAL_US, LOW, Grid, Ints, cut_time, running
from feature_repo.aggregates.profile import OF_CATEGORIES, OF_PLACES, asks, columns_of
from fraud.declared.declaration import EVENT_TEXTS
from fraud.declared.figures import BatchView
from fraud.features.entities import ENTITIES
from stores.labels import effective_words, strength
from stores.lake_files import files_of_date
from stores.outcomes import OUTCOMES

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

#: Transactions in one Python worker's hands at a time, about.
SHARD_ROWS: Final = 500_000
_NEVER: Final = 1 << 30
_TRANSACTIONS: Final = (
    "transaction_id string, event_timestamp timestamp, created_timestamp timestamp, "
    + ", ".join(f"{name} string" for name in EVENT_TEXTS)
    + ", amount_reference bigint, latitude double, longitude double, attributes string"
)
#: Numbers that Spark has as columns; anything else is found by `feature_repo.aggregates.measured`.
NATIVE_NUMBERS: Final = ("amount", "latitude", "longitude")
_OUTCOMES: Final = (
    "transaction_id string, kind string, outcome_id string, event_timestamp timestamp, "
    "created_timestamp timestamp, "
    + ", ".join(f"{entity.key} string" for entity in ENTITIES)
    + ", spent_before bigint, spent_after bigint"
)
_LABELS: Final = (
    "transaction_id string, event_timestamp timestamp, created_timestamp timestamp, is_fraud boolean, "
    "source string"
)


def _dates(root: Path, kind: str, first: date, last: date) -> list[str]:
    """Existing date folders of `root`/`kind` from `first` to `last`, both included."""
    return [
        str(folder)
        for folder in sorted((root / kind).glob("date=*"))
        if first <= date.fromisoformat(folder.name.removeprefix("date=")) <= last
        and next(folder.glob("[!._]*.parquet"), None) is not None
    ]


def _load(spark: SparkSession, schema: str, folders: list[str]) -> DataFrame:
    files = [str(path) for folder in folders for path in files_of_date(Path(folder))]
    return spark.read.schema(schema).parquet(*files) if files else spark.createDataFrame([], schema)


def _bucket(column: str) -> Column:
    from pyspark.sql import functions as F

    return F.floor(F.unix_micros(F.col(column)) / F.lit(INTERVAL_US)).cast("int")


def transactions(spark: SparkSession, root: Path, grid: Grid, days: int) -> DataFrame:
    """Transactions that any window of any cut of `grid` can hold, known before the last cut; windows reach
    `days` back, label maturity included."""
    from pyspark.sql import functions as F

    start = cut_time(grid.first) - timedelta(days=days)
    end = cut_time(grid.last)
    rows = _load(spark, _TRANSACTIONS, _dates(root, "transactions", start.date(), _last_date(end)))
    return rows.where((F.col("event_timestamp") >= F.lit(start)) & _before(end))


def reports(spark: SparkSession, root: Path, grid: Grid, days: int) -> DataFrame:
    """Fraud reports known before the last cut, each on its transaction, with `known` and `until`.

    `known` is the first cut that knows the report and `until` the first that knows the next
    word on the same transaction. Transactions older than the windows are read too, by their
    date, when a report on them is recent.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    start = cut_time(grid.first) - timedelta(days=days)
    end = cut_time(grid.last)
    words = _load(spark, _LABELS, _dates(root, "labels", start.date(), _last_date(end))).where(_before(end))
    # The next word on the same transaction; of equals known at the same instant fraud is the last.
    order = Window.partitionBy("transaction_id").orderBy(
        "created_timestamp", strength(F.col("source")), "is_fraud"
    )
    words = effective_words(words)
    fraud = (
        words.withColumn("next", F.lead("created_timestamp").over(order))
        .where("is_fraud")
        .select(
            "transaction_id",
            (_bucket("created_timestamp") + 1).alias("known"),
            F.coalesce(_bucket("next") + 1, F.lit(_NEVER)).alias("until"),
        )
        # A word that the next one replaced before any cut, or a second copy of it.
        .where("known < until")
    )
    old = words.where(F.col("is_fraud") & (F.col("event_timestamp") < F.lit(start)))
    folders = [
        root / "transactions" / f"date={row[0]}"
        for row in old.select(F.to_date("event_timestamp").cast("string")).distinct().collect()
    ]
    recent = _dates(root, "transactions", start.date(), _last_date(end))
    folders_used = sorted({*recent, *[str(folder) for folder in folders if folder.is_dir()]})
    moves = _load(spark, _TRANSACTIONS, folders_used).where(_before(end))
    return moves.join(F.broadcast(fraud), "transaction_id")


def changes(spark: SparkSession, root: Path, grid: Grid, days: int) -> DataFrame:
    """What outcomes took from what was spent, and what they left, as rows beside the transactions'.

    Of each outcome known before the last cut two: `known` is `TAKEN` with the amount that counted before it,
    and `LEFT` with the one that counts from then on. What else the transaction was, they do not say.
    """
    from pyspark.sql import functions as F

    start, end = cut_time(grid.first) - timedelta(days=days), cut_time(grid.last)
    found = _load(spark, _OUTCOMES, _dates(root, OUTCOMES, start.date(), _last_date(end)))
    found = found.where(_before(end) & (F.col("spent_before") != F.col("spent_after")))
    keys = [entity.key for entity in ENTITIES]
    nothing = F.lit(None)
    rows = found.select(
        F.concat_ws(" ", "transaction_id", "kind", "outcome_id").alias("transaction_id"),
        "event_timestamp", "created_timestamp", *keys,
        *[nothing.cast("string").alias(name) for name in (*EVENT_TEXTS, "attributes") if name not in keys],
        *[nothing.cast("double").alias(name) for name in ("latitude", "longitude")],
        F.inline(
            F.array(
                F.struct(F.lit(TAKEN).alias("known"), F.col("spent_before").alias("amount_reference")),
                F.struct(F.lit(LEFT).alias("known"), F.col("spent_after").alias("amount_reference")),
            )
        ),
    )  # fmt: skip
    return rows.withColumn("until", F.lit(0).cast("int"))


def _before(end: datetime) -> Column:
    from pyspark.sql import functions as F

    return F.col("created_timestamp") < F.lit(end)


def _last_date(end: datetime) -> date:
    return (end - timedelta(microseconds=1)).date()


def is_native(view: BatchView) -> bool:
    """Whether Spark has all that the view looks at: no measure, no attribute."""
    used = columns_of(view)
    return (
        view.key in EVENT_TEXTS
        and not used.flags
        and all(name in NATIVE_NUMBERS for name in used.numbers)
        and all(name in EVENT_TEXTS for name in used.values)
    )


def both_of(moves: DataFrame, *others: DataFrame) -> DataFrame:
    """Transactions, and reports and outcomes on them, as one frame, with what is the same for every view."""
    from pyspark.sql import functions as F

    zero = F.lit(0).cast("int")
    both = moves.select("*", zero.alias("known"), zero.alias("until"))
    for each in others:
        both = both.unionByName(each)
    return both.select(
        "*",
        _bucket("event_timestamp").alias("bucket"),
        (_bucket("created_timestamp") + 1).alias("seen"),
        F.xxhash64("transaction_id").alias("tx"),
    )


#: Columns that all narrow rows have, besides `number0`, ..., `value0`, ... and `flag0`, ...
CARRIED: Final = (
    "view", "shard", "key", "category", "x", "y", "z", "bucket", "seen", "amount", "tx", "known", "until",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Widths:
    """How many columns of each kind narrow rows have: what the view with the most needs."""

    numbers: int
    values: int
    flags: int

    @staticmethod
    def of(views: Sequence[BatchView]) -> Widths:
        used = [columns_of(view) for view in views]
        return Widths(
            max((len(each.numbers) for each in used), default=0),
            max((len(each.values) for each in used), default=0),
            max((len(each.flags) for each in used), default=0),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return (
            *[f"number{place}" for place in range(self.numbers)],
            *[f"value{place}" for place in range(self.values)],
            *[f"flag{place}" for place in range(self.flags)],
        )


def view_rows(both: DataFrame, views: dict[int, BatchView], shards: int, widths: Widths) -> DataFrame:
    """One row per view, value of its key and transaction (or report), with the shard that takes it."""
    from pyspark.sql import functions as F

    structs = [_view_struct(place, view, shards, widths) for place, view in views.items()]
    return (
        both.select(
            F.inline(F.array(*structs)), "bucket", "seen", F.col("amount_reference").alias("amount"), "tx",
            "known", "until",
        )
        .where("key is not null")
        .select(*CARRIED, *widths.names)
    )  # fmt: skip


def _view_struct(place: int, view: BatchView, shards: int, widths: Widths) -> Column:
    from pyspark.sql import functions as F

    used, key = columns_of(view), view.key
    located = asks(view, OF_PLACES)
    columns = [
        F.lit(place).alias("view"),
        F.pmod(F.xxhash64(key), F.lit(shards)).cast("int").alias("shard"),
        F.col(key).alias("key"),
        F.when(F.lit(asks(view, OF_CATEGORIES)), F.col("merchant_category")).alias("category"),
        *[F.when(F.lit(located), value).alias(name) for name, value in _direction()],
    ]
    for index in range(widths.numbers):
        number = F.col(used.numbers[index]) if index < len(used.numbers) else F.lit(None)
        columns.append(number.cast("double").alias(f"number{index}"))
    for index in range(widths.values):
        value = F.lit(None).cast("long")
        if index < len(used.values):
            column = used.values[index]
            value = F.when(F.col(column).isNotNull(), F.xxhash64(column))
        columns.append(value.alias(f"value{index}"))
    columns += [F.lit(None).cast("boolean").alias(f"flag{index}") for index in range(widths.flags)]
    return F.struct(*columns)


def _direction() -> list[tuple[str, Column]]:
    """Where a transaction was, as a point of the unit sphere in millionths: exact in sums, and its
    middle is right at the poles and where longitudes jump."""
    from pyspark.sql import functions as F

    latitude, longitude = F.radians("latitude"), F.radians("longitude")
    values = (
        F.cos(latitude) * F.cos(longitude),
        F.cos(latitude) * F.sin(longitude),
        # Nothing where either is missing.
        F.sin(latitude) + 0 * longitude,
    )
    return [
        (name, F.round(value * F.lit(1e6)).cast("int"))
        for name, value in zip(("x", "y", "z"), values, strict=True)
    ]


def peers(moves: DataFrame, grid: Grid, spans: Iterable[int]) -> dict[int, Peers]:
    """Counts and amounts of everyone and of each merchant category at every cut, by window in cuts."""
    from pyspark.sql import functions as F

    once = moves.groupBy("transaction_id").agg(
        F.min(
            F.struct(
                (_bucket("created_timestamp") + 1).alias("seen"),
                _bucket("event_timestamp").alias("bucket"),
                F.col("amount_reference").alias("amount"),
                F.col("merchant_category").alias("category"),
            )
        ).alias("first")
    )
    amount = F.col("amount")
    sums = (
        once.select("first.*")
        .groupBy("category", "bucket", "seen")
        .agg(
            F.count("*").alias("count"),
            F.sum(amount).alias("total"),
            F.sum((amount * amount).bitwiseAND(F.lit(LOW))).alias("squares_low"),
            F.sum(F.shiftright(amount * amount, HALF)).alias("squares_high"),
        )
        .toArrow()
    )
    return {span: _peers_of(sums, grid, span) for span in spans}


def _peers_of(sums: pa.Table, grid: Grid, span: int) -> Peers:
    ints: dict[str, Ints] = {
        name: sums.column(name).cast(pa.int64()).to_numpy()
        for name in ("bucket", "seen", "count", "total", "squares_low", "squares_high")
    }
    low, high = grid.visible(np.maximum(ints["bucket"] + 1, ints["seen"]), ints["bucket"] + span)
    category = np.array(sums.column("category").to_pylist(), dtype=object)
    shape = (1, grid.size)

    def line(chosen: np.ndarray, values: Ints) -> Ints:
        rows = np.zeros(int(chosen.sum()), dtype=np.int64)
        sums: Ints = running(rows, low[chosen], high[chosen], values[chosen], shape)[0]
        return sums

    everyone = line(np.ones(category.size, dtype=bool), ints["count"])
    table: dict[str, tuple[Ints, Ints, Ints, Ints]] = {}
    for name in sorted({value for value in category if value is not None}):
        chosen = category == name
        sums_of = [line(chosen, ints[each]) for each in ("count", "total", "squares_low", "squares_high")]
        table[name] = (sums_of[0], sums_of[1], sums_of[2], sums_of[3])
    return Peers(everyone, table)
