"""A batch as pandas or Spark sees it, with the columns that the checks derive.

Both engines give the same columns, so one suite serves both:

- ``_ahead_seconds``: event time minus known-at; ``_after_as_of_seconds``: known-at minus the gate's clock;
- ``_reference_off``: 1 where the reference amount is not the amount's, by more than rounding;
- ``_partition_days_off``: days between a row's event date and the folder it lies in;
- ``_known_off_seconds``, ``_transaction_ahead_seconds``, ``_state_unreadable``: of velocity states;
- ``_row``: the row's place in the batch (pandas only), for examples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fraud.contract.money import MINOR_DIGITS, reference_cents
from fraud.features.entities import ENTITY_BY_NAME
from fraud.state.layout import LEAST_BYTES, STATE_VERSION

if TYPE_CHECKING:
    from pyspark.sql import DataFrame as SparkFrame
    from pyspark.sql import SparkSession

_PARTITION: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})")
_PROBE: Final = 10**6
#: Reference amounts may be off by one cent of rounding and this share.
_ROUNDING: Final = 0.001


def reference_factors() -> dict[str, float]:
    """Reference cents of one minor unit, by currency."""
    return {
        code: reference_cents(_PROBE * 10**digits, code) / (_PROBE * 10**digits)
        for code, digits in MINOR_DIGITS.items()
    }


def read_table(files: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of `files`, in their order, with the folder's date as ``_date`` where it has one."""
    tables = []
    for file in files:
        table = pq.ParquetFile(file).read(columns=list(columns) if columns else None)
        found = _PARTITION.search(file.as_posix())
        tables.append(
            table.append_column(
                "_date", pa.array([found.group(1) if found else None] * len(table), pa.string())
            )
        )
    return pa.concat_tables(tables, promote_options="permissive")


def _seconds(later: pd.Series, earlier: pd.Series | datetime) -> pd.Series:
    difference: pd.Series = (later - earlier).dt.total_seconds()
    return difference


def pandas_frame(gate: str, table: pa.Table, *, entity: str | None, as_of: datetime) -> pd.DataFrame:
    """The batch for Great Expectations' pandas engine."""
    frame = table.to_pandas(date_as_object=False, timestamp_as_object=False)
    if gate in ("raw", "labels", "profiles"):
        frame["_ahead_seconds"] = _seconds(frame["event_timestamp"], frame["created_timestamp"])
    if gate in ("raw", "labels"):
        frame["_after_as_of_seconds"] = _seconds(frame["created_timestamp"], as_of)
    if gate == "training":
        frame["_after_as_of_seconds"] = _seconds(frame["event_timestamp"], as_of)
    if gate == "raw":
        expected = frame["amount_minor"].astype(float) * frame["currency"].map(reference_factors())
        found = frame["amount_reference"].astype(float)
        off = (found - expected).abs() > 1 + _ROUNDING * expected.abs()
        frame["_reference_off"] = off.astype("int64")
        folder = pd.to_datetime(frame["_date"], utc=True)
        frame["_partition_days_off"] = (frame["event_timestamp"].dt.floor("D") - folder).dt.days.fillna(0)
    if gate == "velocity" and entity is not None:
        frame["_known_off_seconds"] = _seconds(frame["event_timestamp"], frame["created_timestamp"]).abs()
        frame["_transaction_ahead_seconds"] = _seconds(
            frame["transaction_timestamp"], frame["event_timestamp"]
        )
        states = frame[ENTITY_BY_NAME[entity].state_feature]
        frame["_state_unreadable"] = [int(not readable(state)) for state in states]
    frame["_row"] = np.arange(len(frame))
    derived: pd.DataFrame = frame.drop(columns="_date")
    return derived


def readable(state: bytes | None) -> bool:
    """Whether packed bytes carry this version's mark, and a possible length."""
    return (
        state is not None and len(state) >= LEAST_BYTES and len(state) % 8 == 0 and state[0] == STATE_VERSION
    )


def spark_frame(
    gate: str, files: Sequence[Path], spark: SparkSession, *, entity: str | None, as_of: datetime
) -> SparkFrame:
    """The batch for Great Expectations' Spark engine."""
    from pyspark.sql import functions as f

    frame: Any = spark.read.parquet(*[str(file) for file in files])
    event, created = f.unix_micros("event_timestamp"), None
    if "created_timestamp" in frame.columns:
        created = f.unix_micros("created_timestamp")
    clock = f.lit(int(as_of.timestamp() * 1e6))
    if gate in ("raw", "labels", "profiles") and created is not None:
        frame = frame.withColumn("_ahead_seconds", (event - created) / 1e6)
    if gate in ("raw", "labels") and created is not None:
        frame = frame.withColumn("_after_as_of_seconds", (created - clock) / 1e6)
    if gate == "raw":
        pairs: list[Any] = []
        for code, factor in reference_factors().items():
            pairs += [f.lit(code), f.lit(factor)]
        expected = f.col("amount_minor").cast("double") * f.create_map(*pairs)[f.col("currency")]
        off = f.abs(f.col("amount_reference") - expected) > 1 + _ROUNDING * f.abs(expected)
        frame = frame.withColumn("_reference_off", f.coalesce(off.cast("int"), f.lit(0)))
        named = f.regexp_extract(f.input_file_name(), _PARTITION.pattern.replace("\\d", "[0-9]"), 1)
        folder = f.to_date(f.nullif(named, f.lit("")))  # a file outside a date's folder has no such name
        days = f.coalesce(f.datediff(f.to_date("event_timestamp"), folder), f.lit(0))
        frame = frame.withColumn("_partition_days_off", days)
    if gate == "velocity" and entity is not None and created is not None:
        state = f.col(ENTITY_BY_NAME[entity].state_feature)
        good = (f.length(state) >= LEAST_BYTES) & (f.length(state) % 8 == 0)
        good = good & (f.hex(f.substring(state, 1, 1)) == f.lit(f"{STATE_VERSION:02X}"))
        frame = (
            frame.withColumn("_known_off_seconds", f.abs(event - created) / 1e6)
            .withColumn("_transaction_ahead_seconds", (f.unix_micros("transaction_timestamp") - event) / 1e6)
            .withColumn("_state_unreadable", f.coalesce((~good).cast("int"), f.lit(1)))
        )
    result: SparkFrame = frame
    return result
