"""The training set as one hand-written Spark query: what `training.dataset` is measured against.

    python -m benchmarks.handwritten_set --from ... --to ... --as-of ... --out DIR

No Feast, no offline store, no manifest, nothing resumable: per entity one union of what was
known with who asks, the newest so far by a window, a join back, the features in Arrow batches,
one file a day.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from feature_repo.spark import spark_session
from fraud.features.entities import ENTITIES, PROFILE_TTL, VELOCITY_TTL, Entity
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES, VECTOR
from fraud.features.on_demand import transaction_matrix
from fraud.features.profiles import PROFILE_FEATURES
from fraud.features.request import REQUEST_FIELDS, request_columns
from stores.labels import strength_sql
from stores.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

KEYS = tuple([entity.key for entity in ENTITIES])
DESCRIBED = (*KEYS, "channel", "merchant_category", "country", "currency", "amount_reference")
LABEL = ("is_fraud", "label_mature", "weight")
COLUMNS = ("event_timestamp", "transaction_id", *DESCRIBED, *VECTOR, *LABEL)


def transactions(spark: SparkSession, start: datetime, end: datetime, as_of: datetime) -> DataFrame:
    """The transactions of the set with their labels as known at `as_of`."""
    lake = settings().lake
    spark.read.parquet(str(lake / "transactions")).createOrReplaceTempView("arrived")
    spark.read.parquet(str(lake / "labels")).createOrReplaceTempView("words")
    mature = as_of - timedelta(days=settings().history.label_maturity_days)
    return spark.sql(
        f"""
        WITH moves AS (
          SELECT *, row_number() OVER (PARTITION BY transaction_id ORDER BY created_timestamp, ingest_seq)
            AS arrival FROM arrived
          WHERE date BETWEEN '{start:%Y-%m-%d}' AND '{end:%Y-%m-%d}'
            AND event_timestamp >= TIMESTAMP '{start.isoformat()}'
            AND event_timestamp < TIMESTAMP '{end.isoformat()}'
            AND created_timestamp <= TIMESTAMP '{as_of.isoformat()}'
        ), known AS (
          SELECT transaction_id,
            max(struct({strength_sql()}, created_timestamp, is_fraud)).is_fraud AS is_fraud FROM words
          WHERE created_timestamp <= TIMESTAMP '{as_of.isoformat()}' GROUP BY transaction_id
        )
        SELECT moves.*, coalesce(is_fraud, false) AS is_fraud,
          event_timestamp <= TIMESTAMP '{mature.isoformat()}' AS label_mature, 1.0D AS weight
        FROM moves LEFT JOIN known USING (transaction_id) WHERE arrival = 1
        """
    )


def newest(spark: SparkSession, entity: Entity, start: datetime, end: datetime) -> DataFrame | None:
    """By transaction, the newest profile and state of its `entity` that were known and not too old."""
    lake = settings().lake
    features = [feature.name for feature in PROFILE_FEATURES[entity.name]]
    folders = (lake / "profiles" / entity.name, lake / "velocity" / entity.name)
    if not all(folder.is_dir() for folder in folders):
        return None
    for name, folder in zip(("profile", "velocity"), folders, strict=True):
        spark.read.parquet(str(folder)).createOrReplaceTempView(name)
    profile = ", ".join(["event_timestamp", "created_timestamp", *features])
    state = f"event_timestamp, created_timestamp, {entity.state_feature}"
    oldest_cut, oldest_day = start - PROFILE_TTL, start - VELOCITY_TTL
    known = "greatest(event_timestamp, created_timestamp)"
    columns = ", ".join(
        f"CASE WHEN p.event_timestamp >= at - INTERVAL {PROFILE_TTL.days} DAYS THEN p.{name} END AS {name}"
        for name in features
    )
    return spark.sql(
        f"""
        WITH both AS (
          SELECT {entity.key} AS key, event_timestamp AS at, 1 AS asks, transaction_id,
            NULL AS p, NULL AS v FROM moves WHERE {entity.key} IS NOT NULL
          UNION ALL SELECT {entity.key}, {known}, 0, NULL, struct({profile}), NULL FROM profile
            WHERE cut BETWEEN '{oldest_cut:%Y%m%dT%H%M%S}' AND '{end:%Y%m%dT%H%M%S}'
          UNION ALL SELECT {entity.key}, {known}, 0, NULL, NULL, struct({state}) FROM velocity
            WHERE date BETWEEN '{oldest_day:%Y-%m-%d}' AND '{end:%Y-%m-%d}'
        ), seen AS (
          SELECT transaction_id, at, asks, max(p) OVER until_here AS p, max(v) OVER until_here AS v FROM both
          WINDOW until_here AS (PARTITION BY key ORDER BY at, asks
                                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
        )
        SELECT transaction_id, {columns},
          CASE WHEN v.event_timestamp >= at - INTERVAL {VELOCITY_TTL.days} DAYS
            THEN v.{entity.state_feature} END AS {entity.state_feature}
        FROM seen WHERE asks = 1
        """
    )


def compute(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of the set from transactions with profiles and states beside them."""
    for batch in batches:
        if not batch.num_rows:
            continue
        names = (*KEYS, "channel", "merchant_category", "country", "currency", "latitude", "longitude")
        columns = {name: batch.column(name).to_pylist() for name in names}
        columns["event_timestamp"] = batch.column("event_timestamp").cast(pa.int64()).to_numpy()
        columns["amount_reference"] = batch.column("amount_reference").to_numpy()
        request = request_columns(columns)
        profiles = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in PROFILE_INPUTS}
        states = [batch.column(entity.state_feature).to_pylist() for entity in ENTITIES]
        matrix = transaction_matrix(states, {name: request[name] for name in REQUEST_FIELDS}, profiles)
        found = {
            feature.name: np.ascontiguousarray(matrix[:, place])
            for place, feature in enumerate(TRANSACTION_FEATURES)
        }
        out = [pa.array(found[name]) if name in found else batch.column(name) for name in (*COLUMNS, "date")]
        yield pa.RecordBatch.from_arrays(out, names=[*COLUMNS, "date"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handwritten_set", description=__doc__)
    for name, short in (("start", "--from"), ("end", "--to"), ("as_of", "--as-of")):
        parser.add_argument(short, dest=name, type=datetime.fromisoformat, required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    spark = spark_session("hand-written set")
    rows = transactions(spark, chosen.start, chosen.end, chosen.as_of)
    rows.createOrReplaceTempView("moves")
    missing: list[str] = []
    for entity in ENTITIES:
        found = newest(spark, entity, chosen.start, chosen.end)
        if found is None:
            missing += [f"CAST(NULL AS DOUBLE) AS {each.name}" for each in PROFILE_FEATURES[entity.name]]
            missing.append(f"CAST(NULL AS BINARY) AS {entity.state_feature}")
        else:
            rows = rows.join(found, "transaction_id", "left")
    rows = rows.selectExpr("*", *missing)
    kinds = {field.name: field.dataType.simpleString() for field in rows.schema.fields}
    schema = ", ".join(f"{name} {kinds.get(name, 'double')}" for name in (*COLUMNS, "date"))
    rows = rows.mapInArrow(compute, schema)
    rows = rows.repartition("date").sortWithinPartitions("date", "event_timestamp", "transaction_id")
    rows.write.mode("overwrite").partitionBy("date").parquet(str(chosen.out))


if __name__ == "__main__":
    main()
