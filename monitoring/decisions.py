"""Reading the decision log and joining it to what became known later."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from stores.decisions import NOT_FEATURES, parquet_schema
from stores.labels import latest_labels
from stores.lake import LABEL_SCHEMA
from stores.lake_files import parquet_files, readable, whole


class DecisionLogError(ValueError):
    """A decision log that cannot be read; the text says where and what to do."""


def read_decisions(
    folder: Path,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """Rows of the decision log at `folder` with ``start <= event_timestamp < end`` (UTC).

    Files are read in order of their path; whatever is being written (names that begin with a dot
    or underscore) is passed over, and so is a file that is damaged or no file of the log, with a warning: the
    audit says what is missing. Raises `DecisionLogError` if there is no log.
    """
    if not folder.exists():
        raise DecisionLogError(f"no decision log at {folder}: start the service and score something first")
    files = readable(parquet_files(folder), parquet_schema(()), ("transaction_id", "event_timestamp"))
    if not files:
        raise DecisionLogError(
            f"{folder} holds no parquet file yet: decisions appear there once they are flushed"
        )
    chosen: pc.Expression | None = None
    if start is not None:
        chosen = pc.field("event_timestamp") >= pa.scalar(start, pa.timestamp("us", tz="UTC"))
    if end is not None:
        before = pc.field("event_timestamp") < pa.scalar(end, pa.timestamp("us", tz="UTC"))
        chosen = before if chosen is None else chosen & before
    return _read(files, columns, chosen)


def _read(files: list[Path], columns: list[str] | None, chosen: pc.Expression | None) -> pa.Table:
    """The chosen rows of all files but those whose pages are damaged."""
    try:
        return ds.dataset(files, format="parquet").to_table(columns=columns, filter=chosen)
    except (OSError, pa.ArrowException):
        usable = whole(files)
        if len(usable) == len(files) or not usable:
            raise
        return ds.dataset(usable, format="parquet").to_table(columns=columns, filter=chosen)


def feature_columns(table: pa.Table) -> list[str]:
    """Names of the float columns that hold the served vector."""
    return [
        field.name for field in table.schema
        if field.name not in NOT_FEATURES and pa.types.is_floating(field.type)
    ]  # fmt: skip


def read_labels(folder: Path, *, known_by: datetime) -> pa.Table:
    """The label of each transaction that counted at `known_by`: transaction_id, is_fraud."""
    empty = pa.table({"transaction_id": pa.array([], pa.string()), "is_fraud": pa.array([], pa.bool_())})
    columns = ["transaction_id", "created_timestamp", "is_fraud", "source"]
    files = readable(parquet_files(folder), LABEL_SCHEMA, columns)
    if not files:
        return empty
    known = _read(
        files, columns, pc.field("created_timestamp") <= pa.scalar(known_by, pa.timestamp("us", tz="UTC"))
    )
    return latest_labels(known).select(["transaction_id", "is_fraud"])


def matured(
    decisions: pd.DataFrame, labels: pa.Table, *, as_of: datetime, maturity_days: int
) -> pd.DataFrame:
    """The rows of `decisions` whose label can be trusted at `as_of`, with `is_fraud` as 0 or 1."""
    old = decisions[decisions["event_timestamp"] <= as_of - timedelta(days=maturity_days)]
    verdicts = dict(zip(labels["transaction_id"].to_pylist(), labels["is_fraud"].to_pylist(), strict=True))
    known = old["transaction_id"].map(verdicts)
    return old.assign(is_fraud=known.eq(True).astype("int64"))


def week_bounds(week: str) -> tuple[datetime, datetime]:
    """Start and end (UTC) of an ISO week such as ``2018-W34``; ValueError says what it should be."""
    try:
        year, number = week.split("-W")
        monday = date.fromisocalendar(int(year), int(number), 1)
    except ValueError:
        raise ValueError(f"{week!r} is not an ISO week; it should look like 2018-W34") from None
    start = datetime(monday.year, monday.month, monday.day, tzinfo=UTC)
    return start, start + timedelta(days=7)


def canonical_week(week: str) -> str:
    """An ISO week as folders are named by it: ``2026-W9`` is ``2026-W09``; ValueError for none."""
    return week_name(week_bounds(week)[0])


def week_name(moment: datetime) -> str:
    """The ISO week of `moment` (UTC), such as ``2018-W34``."""
    year, number, _ = moment.astimezone(UTC).isocalendar()
    return f"{year}-W{number:02d}"
