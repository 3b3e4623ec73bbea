"""The offline lake: transactions and labels as parquet, partitioned by UTC date.

`<root>/transactions/date=YYYY-MM-DD/<name>.parquet` holds transactions by the date of their
event, `<root>/labels/date=YYYY-MM-DD/<name>.parquet` reports of fraud by the date on which they
became known. All times are UTC with microseconds. A file appears whole or not at all, and
writing again under the same name replaces what that name held before, on every date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fraud.contract.money import decimal_amount
from fraud.contract.transaction import Transaction
from stores.attributes import attributes_of, attributes_text
from stores.labels import latest_labels
from stores.lake_files import files_of_date, write_parquet

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

#: A transaction in the lake. `event_timestamp` is the event time (whole milliseconds),
#: `created_timestamp` when the platform knew of it: what was known by then had been seen when it was decided;
#: `stated_timestamp` is the event time that its caller stated, null where it is the one that counts, and
#: `lateness_ms` how much later it counts than it happened, null for not at all; `ingest_seq` is its place in
#: arrival order;
#: `amount_minor` counts minor units of `currency`, `amount_reference` reference cents. `attributes` are a
#: team's own fields as one JSON object, so that declaring another one leaves older files as they are;
#: `decision` is what was decided here, null for what was not.
TRANSACTION_SCHEMA: Final = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("event_timestamp", TIMESTAMP),
        ("created_timestamp", TIMESTAMP),
        ("customer_id", pa.string()),
        ("card_id", pa.string()),
        ("merchant_id", pa.string()),
        ("terminal_id", pa.string()),
        ("device_id", pa.string()),
        ("ip", pa.string()),
        ("amount_minor", pa.int64()),
        ("currency", pa.string()),
        ("amount_reference", pa.int64()),
        ("channel", pa.string()),
        ("merchant_category", pa.string()),
        ("country", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("ingest_seq", pa.int64()),
        ("attributes", pa.string()),
        ("stated_timestamp", TIMESTAMP),
        ("lateness_ms", pa.int64()),
        ("decision", pa.string()),
    ]
)

#: A report on a transaction. `event_timestamp` is the transaction's event time,
#: `created_timestamp` when the report became known, `source` one of `stores.labels`.
LABEL_SCHEMA: Final = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("event_timestamp", TIMESTAMP),
        ("created_timestamp", TIMESTAMP),
        ("is_fraud", pa.bool_()),
        ("source", pa.string()),
    ]
)

#: What a label may have besides: who reported it, and his code for why.
_BESIDE: Final = (pa.field("client", pa.string()), pa.field("reason", pa.string()))

#: Columns that may hold nulls, because the contract's field is optional.
OPTIONAL_COLUMNS: Final = frozenset(
    {
        "terminal_id",
        "device_id",
        "ip",
        "merchant_category",
        "country",
        "latitude",
        "longitude",
        "stated_timestamp",
        "lateness_ms",
        "attributes",
        "decision",
        "reason",
    }
)
#: Columns that a table may lack: null there.
LATER_COLUMNS: Final = frozenset({"attributes", "stated_timestamp", "lateness_ms", "decision"})
TRANSACTIONS: Final = "transactions"
LABELS: Final = "labels"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY_US: Final = 86_400_000_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
_COPIED: Final = (
    "transaction_id", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip",
    "amount_minor", "currency", "amount_reference", "channel", "merchant_category", "country",
    "latitude", "longitude",
)  # fmt: skip


class LakeError(ValueError):
    """A table or a name that the lake refuses; the text says why."""


def microseconds(moment: datetime) -> int:
    """`moment` as microseconds since 1970 UTC; LakeError if it carries no offset."""
    if moment.tzinfo is None:
        raise LakeError("a time without an offset cannot be placed; add tzinfo=UTC")
    return (moment - _EPOCH) // _MICROSECOND


def moment(us: int) -> datetime:
    """The UTC time `us` microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=us)


def epoch_us(column: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A timestamp column without nulls as int64 microseconds since 1970 UTC."""
    cast_column = column.cast(TIMESTAMP).cast(pa.int64())
    return cast(
        "np.ndarray[Any, np.dtype[np.int64]]",
        cast_column.to_numpy(zero_copy_only=False)
        if isinstance(cast_column, pa.Array)
        else cast_column.to_numpy(),
    )


def transaction_table(
    transactions: Iterable[Transaction], *, first_seq: int = 0, created: datetime | None = None
) -> pa.Table:
    """The rows of valid `transactions`, in the order given, as TRANSACTION_SCHEMA.

    `ingest_seq` counts up from `first_seq`. `created` is when they became known; without it
    each became known at its own event time.
    """
    rows = list(transactions)
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _COPIED}
    times = [row.event_ms * 1000 for row in rows]
    columns["attributes"] = [attributes_text(row.attributes) for row in rows]
    columns["event_timestamp"] = times
    columns["created_timestamp"] = times if created is None else [microseconds(created)] * len(rows)
    columns |= {name: [None] * len(rows) for name in LATER_COLUMNS}
    columns["ingest_seq"] = list(range(first_seq, first_seq + len(rows)))
    return pa.table(
        [
            pa.array(columns[field.name], _storage(field.type)).cast(field.type)
            for field in TRANSACTION_SCHEMA
        ],
        schema=TRANSACTION_SCHEMA,
    )


def transactions_from_table(table: pa.Table) -> Iterator[Transaction]:
    """The contract's transactions of a TRANSACTION_SCHEMA table, in its order; amounts exact."""
    for batch in conform(table, TRANSACTION_SCHEMA).to_batches(max_chunksize=10_000):
        columns = {name: batch.column(name).to_pylist() for name in _COPIED if name != "amount_reference"}
        minor = columns.pop("amount_minor")
        times = epoch_us(batch.column("event_timestamp")).tolist()
        columns["attributes"] = [attributes_of(text) for text in batch.column("attributes").to_pylist()]
        names = tuple(columns)
        for us, cents, *values in zip(times, minor, *columns.values(), strict=True):
            fields: dict[str, Any] = dict(zip(names, values, strict=True))
            amount = decimal_amount(cents, fields["currency"])
            yield Transaction(event_time=moment(us), amount=amount, **fields)


def write_transactions(table: pa.Table, root: Path, *, name: str) -> list[Path]:
    """Write `table` under `root`/transactions by event date; return the files, oldest first."""
    files = _write(table, TRANSACTION_SCHEMA, root / TRANSACTIONS, "event_timestamp", name)
    _remove_stale(root / TRANSACTIONS, name, set(files))
    return files


def replace_transactions(tables: Iterable[pa.Table], root: Path, *, name: str) -> int:
    """Write `tables`, no two of which share a date, as one under `name`; return the row count.

    For histories larger than memory: one table is held at a time.
    """
    written: set[Path] = set()
    rows = 0
    for table in tables:
        files = _write(table, TRANSACTION_SCHEMA, root / TRANSACTIONS, "event_timestamp", name)
        if not written.isdisjoint(files):
            raise LakeError("two tables hold transactions of the same date")
        written.update(files)
        rows += table.num_rows
    _remove_stale(root / TRANSACTIONS, name, written)
    return rows


def by_event_date(table: pa.Table, by: str = "event_timestamp") -> Iterator[tuple[str, pa.Table]]:
    """The rows of each UTC date of the time column `by`, oldest date first, and its folder's name."""
    days = epoch_us(table.column(by)) // _DAY_US
    if days.size and np.any(days[1:] < days[:-1]):
        order = np.argsort(days, kind="stable")
        table, days = table.take(order), days[order]
    distinct, first = np.unique(days, return_index=True)
    bounds = [*first.tolist(), table.num_rows]
    for place, day in enumerate(distinct.tolist()):
        rows = table.slice(bounds[place], bounds[place + 1] - bounds[place])
        yield f"date={moment(day * _DAY_US):%Y-%m-%d}", rows


def write_labels(table: pa.Table, root: Path, *, name: str) -> list[Path]:
    """Write `table` under `root`/labels by the date of known-at; return the files.

    Columns `client`, the one who reported, and `reason`, his code, are kept where there are any.
    """
    schema = LABEL_SCHEMA
    for field in _BESIDE:
        schema = schema.append(field) if field.name in table.column_names else schema
    files = _write(table, schema, root / LABELS, "created_timestamp", name)
    _remove_stale(root / LABELS, name, set(files))
    return files


def read_transactions(root: Path, start: datetime | None = None, end: datetime | None = None) -> pa.Table:
    """Transactions with event time in ``[start, end)``, by event time, then arrival."""
    table = _read(root / TRANSACTIONS, TRANSACTION_SCHEMA, "event_timestamp", start, end)
    return table.sort_by([("event_timestamp", "ascending"), ("ingest_seq", "ascending")])


def read_labels(root: Path, known_by: datetime | None = None) -> pa.Table:
    """What was known of each transaction at `known_by` (inclusive): the label that counts, one row each.

    Without `known_by`, everything known so far. Rows come by known-at, then transaction id.
    """
    end = None if known_by is None else known_by + _MICROSECOND
    table = _read(root / LABELS, LABEL_SCHEMA, "created_timestamp", None, end)
    return latest_labels(table)


def parquet_history(root: Path, kind: str = TRANSACTIONS) -> dict[date, int]:
    """Rows per date of `root`/`kind`, oldest first, from the files' own footers."""
    counts: dict[date, int] = {}
    for folder in sorted((root / kind).glob("date=*")):
        day = date.fromisoformat(folder.name.removeprefix("date="))
        counts[day] = sum(pq.read_metadata(path).num_rows for path in files_of_date(folder))
    return counts


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the columns and types of `schema`; LakeError names what does not fit."""
    missing = [name for name in schema.names if name not in table.column_names]
    for name in LATER_COLUMNS.intersection(missing):
        table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
        missing.remove(name)
    if missing:
        raise LakeError(f"columns are missing: {', '.join(missing)}")
    table = table.select(schema.names)
    for name in schema.names:
        if name not in OPTIONAL_COLUMNS and table.column(name).null_count:
            raise LakeError(f"{name} holds nulls")
    if table.schema.equals(schema):
        return table
    try:
        return table.replace_schema_metadata(None).cast(schema)
    except pa.ArrowInvalid as error:
        raise LakeError(f"a column does not fit the schema: {error}") from None


def _write(table: pa.Table, schema: pa.Schema, folder: Path, by: str, name: str) -> list[Path]:
    if not _NAME.fullmatch(name):
        raise LakeError(f"file name {name!r} should be letters, digits and . _ + - only")
    days = by_event_date(conform(table, schema), by)
    return [write_parquet(rows, folder / day / f"{name}.parquet") for day, rows in days]


def _remove_stale(folder: Path, name: str, written: set[Path]) -> None:
    for stale in set(folder.glob(f"date=*/{name}.parquet")) - written:
        stale.unlink()


def _read(folder: Path, schema: pa.Schema, by: str, start: datetime | None, end: datetime | None) -> pa.Table:
    """Rows of `folder` with `by` in ``[start, end)``, reading only the dates that can hold any."""
    condition = None
    if start is not None:
        condition = pc.field(by) >= pa.scalar(microseconds(start), pa.int64()).cast(TIMESTAMP)
    if end is not None:
        before = pc.field(by) < pa.scalar(microseconds(end), pa.int64()).cast(TIMESTAMP)
        condition = before if condition is None else condition & before
    files = []
    for day_folder in sorted(folder.glob("date=*")):
        day = datetime.fromisoformat(day_folder.name.removeprefix("date=")).replace(tzinfo=UTC)
        if (start is None or day + timedelta(days=1) > start) and (end is None or day < end):
            files += files_of_date(day_folder)
    if not files:
        return schema.empty_table()
    import pyarrow.dataset as pads  # it loads pandas, which what runs beside requests must not

    dataset = pads.dataset([str(path) for path in files], schema=schema, format="parquet")
    return dataset.to_table(filter=condition)


def _storage(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if kind == TIMESTAMP else kind


def _array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
