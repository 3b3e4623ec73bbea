"""The velocity log: every state of every entity, from when it was visible.

    python -m feature_repo.velocity_log --from 2018-04-01 --to 2018-10-01

Spark replays the lake's transactions in arrival order through the state class that the stream
runs, so history and stream agree byte for byte. A range of arrival days continues from the
states before it and can be run again: it replaces its own rows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.declared_log import build_declared_log
from feature_repo.spark import print_progress, spark_session
from feature_repo.velocity_replay import BEFORE_ALL, Logged, arrival_day, shard_worker
from fraud.features.entities import ENTITIES, TRACKED_FIELDS, Entity
from stores.declared import declared
from stores.keys import open_identity
from stores.lake_files import files_of_date
from stores.outcomes import OUTCOMES
from stores.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

VELOCITY: Final = "velocity"
#: Transactions of one entity in one Python worker's hands at a time, about.
SHARD_ROWS: Final = 250_000
#: A late event belongs to its arrival day; this far back its transaction's own date may lie.
LATEST_ARRIVAL: Final = timedelta(days=7)
PLACE: Final = ("latitude", "longitude")
_EPOCH: Final = date(1970, 1, 1)
_TRANSACTIONS: Final = (
    "transaction_id string, event_timestamp timestamp, created_timestamp timestamp, "
    "customer_id string, card_id string, merchant_id string, terminal_id string, device_id string, "
    "ip string, currency string, amount_reference bigint, channel string, merchant_category string, "
    "country string, latitude double, longitude double, ingest_seq bigint, attributes string, decision string"
)
_OUTCOMES: Final = (
    "transaction_id string, event_timestamp timestamp, created_timestamp timestamp, customer_id string, "
    "card_id string, merchant_id string, terminal_id string, device_id string, ip string, "
    "spent_before bigint, spent_after bigint"
)
#: Orders an outcome behind every payment that became known with it.
_AFTER_ALL: Final = 1 << 62
_REPORT: Final = "entity int, arrived int, date string, file string, rows bigint"


def build_velocity_log(
    start: datetime, end: datetime, spark: SparkSession | None = None, views: Collection[str] | None = None
) -> dict[str, int]:
    """Log the states after every transaction that arrived in ``[start, end)``; rows by entity and view.

    With `views`, only those of these declared views, such as one that is new.

    Arrival is the transaction's `created_timestamp`; the range is widened to whole UTC days,
    which are replaced if they are in the log already. States continue from the log's newest
    before the first day.
    """
    spark = spark or spark_session("velocity log")
    first, last = start.astimezone(UTC).date(), (end.astimezone(UTC) - timedelta(microseconds=1)).date()
    if first > last:
        raise ValueError(f"the range from {start.isoformat()} to {end.isoformat()} holds no time")
    root = settings().lake
    moves = _arrivals(spark, root, first, last)
    shards = 1 + moves.count() // SHARD_ROWS
    own = declared()
    chosen = [place for place, view in enumerate(own.layouts) if views is None or view.view in views]
    unknown = sorted(set(views or ()) - {view.view for view in own.layouts})
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such stream view is declared")
    written = _standard_log(spark, moves, root, (first, last), shards) if views is None else {}
    if chosen:
        written |= build_declared_log(moves, own, root, (first, last), shards, chosen)
    return written


def _standard_log(
    spark: SparkSession, moves: DataFrame, root: Path, days: tuple[date, date], shards: int
) -> dict[str, int]:
    first, last = days
    rows = _entity_rows(moves, shards).unionByName(_changes(spark, root, first, last, shards))
    for place, entity in enumerate(ENTITIES):
        seeds = _seeds(spark, root, place, entity, first, shards)
        rows = rows.unionByName(seeds) if seeds is not None else rows
    staging = root / VELOCITY / f".staging-{os.getpid()}"
    try:
        work = shard_worker(str(staging), open_identity(settings()))
        done = rows.groupBy("entity", "shard").applyInArrow(work, _REPORT).collect()
        return _publish(done, root, staging, first, last)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def newest_states(entity: Logged, before: datetime) -> Iterator[tuple[str, bytes]]:
    """Each value of `entity` with its packed state as it was known just before `before`.

    Reads the log from its newest day backwards, in no order of values.
    """
    limit = pa.scalar(before.astimezone(UTC)).cast(pa.timestamp("us", tz="UTC"))
    seen: set[str] = set()
    for folder in sorted((settings().lake / VELOCITY / entity.name).glob("date=*"), reverse=True):
        if date.fromisoformat(folder.name.removeprefix("date=")) > before.astimezone(UTC).date():
            continue
        columns = [entity.key, "event_timestamp", "created_timestamp", entity.state_feature]
        files = sorted(folder.glob("[!._]*.parquet"))
        day = pa.concat_tables([pq.read_table(path, columns=columns, partitioning=None) for path in files])
        day = day.filter(pc.less(day.column("created_timestamp"), limit))
        # The last of a key in this order is its newest.
        order = pc.sort_indices(day, [("event_timestamp", "ascending")])
        keys = day.column(entity.key).take(order).to_pylist()
        newest = {key: place for place, key in enumerate(keys) if key not in seen}
        states = day.column(entity.state_feature).take(
            order.take(pa.array(list(newest.values()), pa.int64()))
        )
        seen.update(newest)
        yield from zip(newest, states.to_pylist(), strict=True)


def _arrivals(spark: SparkSession, root: Path, first: date, last: date) -> DataFrame:
    """Transactions that arrived on the days, with hashed ids; late ones come from older dates."""
    from pyspark.sql import functions as F

    files = [
        str(path)
        for folder in sorted((root / "transactions").glob("date=*"))
        if first - LATEST_ARRIVAL <= date.fromisoformat(folder.name.removeprefix("date=")) <= last
        for path in files_of_date(folder)
    ]
    reader = spark.read.schema(_TRANSACTIONS)
    rows = reader.parquet(*files) if files else spark.createDataFrame([], _TRANSACTIONS)
    arrived = F.datediff(F.to_date("created_timestamp"), F.lit(_EPOCH))
    rows = rows.withColumn("arrived", arrived).where(
        F.col("arrived").between((first - _EPOCH).days, (last - _EPOCH).days)
    )
    # Event time has whole milliseconds, as the contract says.
    return rows.withColumns(
        {
            "event_ms": F.floor(F.unix_micros("event_timestamp") / 1000),
            "created_us": F.unix_micros("created_timestamp"),
        }
    )


def _entity_rows(moves: DataFrame, shards: int) -> DataFrame:
    """One row per entity value and transaction, with what that entity's state looks at."""
    from pyspark.sql import functions as F

    structs = [_entity_struct(place, entity, shards) for place, entity in enumerate(ENTITIES)]
    rows = moves.select(
        F.inline(F.array(*structs)), "event_ms", "created_us", F.col("amount_reference").alias("amount"),
        "transaction_id", "ingest_seq", "arrived", F.lit(None).cast("binary").alias("seed"),
        F.lit(None).cast("bigint").alias("before"),
    )  # fmt: skip
    return rows.where("key is not null")


def _changes(spark: SparkSession, root: Path, first: date, last: date, shards: int) -> DataFrame:
    """The outcomes that became known on the days and change what is spent, as rows of their entities: after
    the payments that became known at the same time."""
    from pyspark.sql import functions as F

    folders = sorted((root / OUTCOMES).glob("date=*"))
    files = [str(path) for folder in folders for path in files_of_date(folder)]
    reader = spark.read.schema(_OUTCOMES)
    found = reader.parquet(*files) if files else spark.createDataFrame([], _OUTCOMES)
    arrived = F.datediff(F.to_date("created_timestamp"), F.lit(_EPOCH))
    found = found.withColumn("arrived", arrived).where(
        F.col("arrived").between((first - _EPOCH).days, (last - _EPOCH).days)
        & (F.col("spent_before") != F.col("spent_after"))
    )
    places = [
        F.struct(
            F.lit(place).alias("entity"), _shard(F.col(entity.key), shards), F.col(entity.key).alias("key")
        )
        for place, entity in enumerate(ENTITIES)
    ]
    nothing = F.lit(None)
    rows = found.select(
        F.inline(F.array(*places)),
        *[nothing.cast("string").alias(f"tracked{index}") for index in range(3)],
        *[nothing.cast("double").alias(name) for name in PLACE],
        F.floor(F.unix_micros("event_timestamp") / 1000).alias("event_ms"),
        F.unix_micros("created_timestamp").alias("created_us"),
        F.col("spent_after").alias("amount"),
        "transaction_id", F.lit(_AFTER_ALL).alias("ingest_seq"), "arrived",
        nothing.cast("binary").alias("seed"), F.col("spent_before").alias("before"),
    )  # fmt: skip
    return rows.where("key is not null")


def _shard(key: Column, shards: int) -> Column:
    from pyspark.sql import functions as F

    return F.pmod(F.xxhash64(key), F.lit(shards)).cast("int").alias("shard")


def _entity_struct(place: int, entity: Entity, shards: int) -> Column:
    from pyspark.sql import functions as F

    nothing = F.lit(None)
    tracked: list[Column] = [F.col(TRACKED_FIELDS[name]) for name in entity.tracked]
    tracked += [nothing.cast("string")] * (3 - len(tracked))
    return F.struct(
        F.lit(place).alias("entity"),
        _shard(F.col(entity.key), shards),
        F.col(entity.key).alias("key"),
        *[column.alias(f"tracked{index}") for index, column in enumerate(tracked)],
        *[(F.col(name) if entity.located else nothing.cast("double")).alias(name) for name in PLACE],
    )


def _seeds(
    spark: SparkSession, root: Path, place: int, entity: Entity, first: date, shards: int
) -> DataFrame | None:
    """The newest state per value among days that arrived before `first`, as rows to start from."""
    from pyspark.sql import functions as F

    folder = root / VELOCITY / entity.name
    files = [str(path) for path in folder.glob("date=*/arrived-*.parquet") if arrival_day(path) < first]
    if not files:
        return None
    schema = f"{entity.key} string, event_timestamp timestamp, {entity.state_feature} binary"
    newest = (
        spark.read.schema(schema)
        .parquet(*files)
        .groupBy(F.col(entity.key).alias("key"))
        .agg(F.max_by(entity.state_feature, "event_timestamp").alias("seed"))
    )
    nothing = F.lit(None)
    return newest.select(
        F.lit(place).alias("entity"), _shard(F.col("key"), shards), "key",
        *[nothing.cast("string").alias(f"tracked{index}") for index in range(3)],
        *[nothing.cast("double").alias(name) for name in PLACE],
        nothing.cast("bigint").alias("event_ms"), F.lit(BEFORE_ALL).cast("bigint").alias("created_us"),
        nothing.cast("bigint").alias("amount"),
        nothing.cast("string").alias("transaction_id"),
        F.lit(BEFORE_ALL).cast("bigint").alias("ingest_seq"),
        nothing.cast("int").alias("arrived"), "seed", nothing.cast("bigint").alias("before"),
    )  # fmt: skip


def _publish(done: list[Any], root: Path, staging: Path, first: date, last: date) -> dict[str, int]:
    """Move finished files into the log; files of the same arrival days that are no more go last."""
    written = dict.fromkeys([entity.name for entity in ENTITIES], 0)
    fresh: set[Path] = set()
    for row in done:
        name = ENTITIES[row["entity"]].name
        target = root / VELOCITY / name / f"date={row['date']}" / row["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        (staging / name / row["date"] / row["file"]).replace(target)
        fresh.add(target)
        written[name] += row["rows"]
    for entity in ENTITIES:
        for path in (root / VELOCITY / entity.name).glob("date=*/arrived-*.parquet"):
            if path not in fresh and first <= arrival_day(path) <= last:
                path.unlink()
    return written


def main() -> None:
    """The command line; exits with a sentence on a range that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m feature_repo.velocity_log", description=__doc__)
    parser.add_argument("--from", dest="start", type=datetime.fromisoformat, required=True, help="first day")
    parser.add_argument(
        "--to", dest="end", type=datetime.fromisoformat, required=True, help="end, not included"
    )
    parser.add_argument("--views", nargs="+", help="only these declared stream views, such as a new one")
    chosen = parser.parse_args()
    bounds = [at if at.tzinfo else at.replace(tzinfo=UTC) for at in (chosen.start, chosen.end)]
    started = time.monotonic()
    try:
        written = build_velocity_log(bounds[0], bounds[1], views=chosen.views)
    except ValueError as error:
        parser.error(str(error))
    for name, rows in written.items():
        print(f"{name:10} {rows:>12,} states")
    print_progress(f"velocity log written in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
