"""Anybody's CSV or parquet as a dataset folder: `python -m datasets.importer --data ... --mapping ...`.

Rows that break the contract go to rejects.parquet with the field and the reason, card numbers
redacted; the run says how many. Batches of bounded size; the input may be in any order.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets import columns
from datasets.folder import DatasetError, DatasetInfo, DatasetWriter, new_dataset, read_dataset_transactions
from datasets.mapping import FieldMapping, Mapping, MappingError, load_mapping
from datasets.money_columns import digits_column, reference_column
from datasets.rejects import RejectsFile
from datasets.sources import read_batches, source_files
from datasets.staging import DayStage, SeenIds
from datasets.tokens import TokenKeyError
from datasets.validity import Findings, Mask, check_columns
from stores.lake import LABEL_SCHEMA, LATER_COLUMNS, TIMESTAMP, TRANSACTION_SCHEMA, conform

Progress = Callable[[str], None]

#: What waits for sorting: the transaction, and what the source says of it.
_STAGED = pa.schema(
    [
        *(field for field in TRANSACTION_SCHEMA if field.name not in {"ingest_seq", *LATER_COLUMNS}),
        ("reported", pa.bool_()),
        ("is_fraud", pa.bool_()),
        ("known_timestamp", TIMESTAMP),
        ("type", pa.string()),
    ]
)
#: How far ahead of this machine's clock an event may lie: a day, for other time zones.
_AHEAD: Final = timedelta(days=1)
#: From which shares on an import says that rows share their times, and that an id is a giant.
_SHARED: Final = 0.01
_GIANT: Final = 0.3
_FEWEST_TO_JUDGE: Final = 100
_TEXT_FIELDS = (
    "transaction_id", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip",
    "currency", "channel", "merchant_category", "country",
)  # fmt: skip


def import_data(
    data: Path,
    mapping: Mapping,
    out: Path,
    progress: Progress = lambda text: None,
    most_rejected: float = 1.0,
) -> tuple[DatasetInfo, Counter[tuple[str, str]]]:
    """Import the file or folder `data` into the dataset folder `out`.

    Returns what was imported, and how many rows were rejected for which (field, reason). Raises
    MappingError when mapping and data do not fit, DatasetError when `out` is something else, and
    `TooManyRejects`, leaving no dataset, when more than `most_rejected` of the rows was refused.
    """
    files = source_files(data)
    with new_dataset(out) as writer:
        stage, seen = DayStage(writer.folder / ".stage"), SeenIds()
        with RejectsFile(writer.folder / "rejects.parquet") as rejects:
            rows = 0
            hidden = mapping.tokenized()
            for file in files:
                for source in read_batches(file, mapping.source, mapping.columns()):
                    rejects.add_lines(source.file, source.bad_lines)
                    table, findings = convert(source.batch, mapping, first_row=rows)
                    _refuse_repeated(table, findings, seen)
                    rejects.add(source, findings, hidden)
                    stage.add(table.filter(pa.array(~findings.broken)))
                    rows += source.batch.num_rows
                    progress(f"{rows:,} rows read, {rejects.count:,} rejected")
        everything = rows + sum(count for (field, _), count in rejects.reasons.items() if field == "(row)")
        if rejects.count > most_rejected * everything:
            raise TooManyRejects(rejects.reasons, everything, most_rejected)
        _write_days(writer, stage, mapping)
        label = mapping.label
        info = writer.finish(
            mapping.name,
            label_policy=_label_policy(mapping) if label else {"kind": "none"},
            rejected=rejects.count,
            source={"files": [file.name for file in files], "mapping": mapping.name},
        )
    return info, rejects.reasons


class TooManyRejects(ValueError):
    """More rows were refused than may be; the text says which reason took how many, and what may mend it."""

    def __init__(self, reasons: Counter[tuple[str, str]], rows: int, most: float) -> None:
        lines = [
            f"{reasons.total():,} of {rows:,} rows were refused, more than {most:.1%}; nothing was imported"
        ]
        for (field, reason), count in reasons.most_common(5):
            lines.append(f"  {count:,}: {field}: {reason}")
        lines += [
            f"  {hint}" for field, hint in _HINTS.items() if any(known == field for known, _ in reasons)
        ]
        lines.append("  --most-rejected 1 imports what is left, which may be a biased part")
        super().__init__("\n".join(lines))


_HINTS: Final = {
    "card_id": "card_id: tokenize: true makes tokens of a column; card_numbers: none says it has no cards",
    "event_time": "event_time: timezone, format, or epoch (s, ms, us, ns, min, h, d) and an origin",
    "amount": "amount: unit: minor, decimal: ',', or negative: absolute, where the sign says who pays",
    "currency": "currency: values maps a provider's codes to ISO 4217's",
    "channel": "channel: values maps a provider's words to pos, ecom, atm, moto or transfer",
    "transaction_id": "transaction_id: row: true numbers the rows where there is no id",
    "label": "label: fraud and genuine list the words of the column",
}


def convert(batch: pa.RecordBatch, mapping: Mapping, first_row: int = 0) -> tuple[pa.Table, Findings]:
    """The rows of `batch` as the contract's columns, and what is wrong with them.

    `first_row` is how many rows of the data came before them.
    """
    batch = columns.without_words(batch, mapping.source.nothing, mapping.columns())
    findings = Findings(batch.num_rows)
    fields = mapping.fields
    made: dict[str, pa.Array] = {}
    for name in _TEXT_FIELDS:
        source = fields.get(name)
        if source is None:
            made[name] = pa.nulls(batch.num_rows, pa.string())
        elif source.row:
            made[name] = _row_ids(mapping.name, first_row, batch.num_rows)
        else:
            made[name] = columns.field_text(batch, source)
    made["ip"] = _noted(columns.normal_addresses(made["ip"]), findings, "ip")
    for name in ("latitude", "longitude"):
        source = fields.get(name)
        made[name] = pa.nulls(batch.num_rows, pa.float64())
        if source is not None:
            made[name] = _noted(columns.degrees(_values(batch, source)), findings, name)
    # Exactly 0, 0 is where a device is that does not know: no place.
    nowhere = pc.fill_null(pc.and_(pc.equal(made["latitude"], 0.0), pc.equal(made["longitude"], 0.0)), False)
    for name in ("latitude", "longitude"):
        made[name] = pc.if_else(nowhere, None, made[name])
    event = fields["event_time"]
    made["event_timestamp"] = _noted(columns.times(_values(batch, event), event), findings, "event_time")
    late = pc.greater(made["event_timestamp"], pa.scalar(datetime.now(UTC) + _AHEAD, TIMESTAMP))
    findings.add(_bools(pc.fill_null(late, False)), "event_time", "lies in the future")
    made["created_timestamp"] = made["event_timestamp"]
    digits, known = digits_column(made["currency"])
    amount = fields["amount"]
    minor, problems = columns.amounts(_values(batch, amount), digits, amount)
    if amount.minor_digits:
        minor, more = columns.in_iso_digits(minor, made["currency"], amount)
        problems = problems + more
    # Without a known currency an amount means nothing: the currency is at fault, not the amount.
    minor = _noted((minor, [(mask & known, reason) for mask, reason in problems]), findings, "amount")
    made["amount_minor"] = pc.if_else(pa.array(known), minor, 0)
    made |= _reports(batch, mapping, made["event_timestamp"], findings)
    check_columns(
        pa.table(made), findings, {name for name, source in fields.items() if source.card_numbers == "none"}
    )
    good = pa.array(~findings.broken)
    safe = pc.if_else(good, made["amount_minor"], 0).to_numpy(zero_copy_only=False)
    made["amount_reference"] = reference_column(safe, pc.if_else(good, made["currency"], "USD"))
    table = pa.table([made[field.name] for field in _STAGED], schema=_STAGED)
    return table, findings


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets.importer", description="Import CSV or parquet into a dataset folder."
    )
    parser.add_argument("--data", type=Path, required=True, help="a CSV or parquet file, or a folder of them")
    parser.add_argument("--mapping", type=Path, required=True, help="which columns become which fields")
    parser.add_argument("--out", type=Path, required=True, help="the dataset folder to write or replace")
    parser.add_argument(
        "--most-rejected", type=float, default=0.05, metavar="SHARE",
        help="share of rows that may be refused before the import fails (default 0.05)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if not options.data.exists():
        parser.error(f"--data {options.data} does not exist")
    began = time.monotonic()
    try:
        info, reasons = import_data(
            options.data,
            load_mapping(options.mapping),
            options.out,
            lambda text: print("  " + text, file=sys.stderr),
            options.most_rejected,
        )
    except TooManyRejects as error:
        print(error, file=sys.stderr)
        return 1
    except (MappingError, DatasetError, TokenKeyError) as error:
        parser.error(str(error))
    print(
        f"{info.name}: {info.rows:,} transactions, {info.frauds:,} frauds, {info.rejected:,} rows rejected, "
        f"{info.start} to {info.end}, in {time.monotonic() - began:.1f} s: {options.out}"
    )
    for (field, reason), count in reasons.most_common(10):
        print(f"  rejected {count:,}: {field}: {reason}")
    for line in remarks(options.out):
        print(f"  {line}")
    if info.rejected:
        print(f"  every rejected row: {options.out / 'rejects.parquet'}")
    return 0 if info.rows else 1


def remarks(out: Path) -> list[str]:
    """What somebody should know of an imported dataset: shared times, one id for nearly everybody."""
    rows = read_dataset_transactions(out).select(["customer_id", "device_id", "ip", "event_timestamp"])
    if not rows.num_rows:
        return []
    found = []
    together = rows.group_by(["customer_id", "event_timestamp"]).aggregate([([], "count_all")])
    counts = together.column("count_all").to_numpy()
    share = counts[counts > 1].sum() / rows.num_rows
    if share >= _SHARED:
        found.append(
            f"{share:.0%} of rows share their time with another of the same customer: windows are blind"
        )
    for name in ("customer_id", "device_id", "ip"):
        column = rows.column(name).drop_null()
        if len(column) >= _FEWEST_TO_JUDGE:
            most = max(entry["counts"] for entry in pc.value_counts(column).to_pylist())
            if most >= _GIANT * rows.num_rows:
                found.append(f"one {name} stands in {most / rows.num_rows:.0%} of rows: a word for nothing?")
    return found


def _row_ids(name: str, first_row: int, rows: int) -> pa.Array:
    numbers = pa.array(np.arange(first_row + 1, first_row + rows + 1)).cast(pa.string())
    return pc.binary_join_element_wise(pa.scalar(name), numbers, "-")


def _values(batch: pa.RecordBatch, source: FieldMapping) -> pa.Array:
    """The column itself, with its own type, unless the mapping makes text of it."""
    if source.column is not None and source.values is None and source.default is None:
        return batch.column(source.column)
    return columns.field_text(batch, source)


def _noted(read: tuple[pa.Array, columns.Problems], findings: Findings, field: str) -> pa.Array:
    values, problems = read
    for mask, reason in problems:
        findings.add(mask, field, reason)
    return values


def _reports(
    batch: pa.RecordBatch, mapping: Mapping, event: pa.Array, findings: Findings
) -> dict[str, pa.Array]:
    """Whether each row was reported, as what, when that became known, and what it really was."""
    rows = batch.num_rows
    label = mapping.label
    if label is None:
        return {
            "reported": pa.array(np.zeros(rows, dtype=bool)),
            "is_fraud": pa.nulls(rows, pa.bool_()),
            "known_timestamp": pa.nulls(rows, TIMESTAMP),
            "type": pa.nulls(rows, pa.string()),
        }
    said = columns.tidy(pc.utf8_lower(columns.text(batch.column(label.column))))
    said = pc.replace_substring_regex(said, r"^(\d+)\.0+$", r"\1")  # 1.0 is 1
    fraud = _is_in(said, label.fraud)
    genuine = _is_in(said, label.genuine)
    neither = ~fraud & ~genuine & _bools(pc.is_valid(said))
    findings.add(neither, "label", f"should be one of {', '.join(label.fraud + label.genuine)}")
    reported = fraud | (genuine & label.keep_genuine)
    if label.known_at is not None:
        known = _noted(columns.times(_values(batch, label.known_at), label.known_at), findings, "label")
        findings.add(fraud & _bools(pc.is_null(known)), "label", "has no time at which it became known")
        early = _bools(pc.fill_null(pc.less(known, event), False))
        findings.add(reported & early, "label", "became known before its transaction")
        reported &= _bools(pc.is_valid(known))
    else:
        delay = pa.scalar(label.delay, pa.duration("us"))
        known = pc.add(event, delay)
    truth = mapping.ground_truth
    kind = columns.field_text(batch, truth.type) if truth else pa.nulls(rows, pa.string())
    return {
        "reported": pa.array(reported),
        "is_fraud": pa.array(fraud),
        "known_timestamp": known,
        "type": kind,
    }


def _is_in(values: pa.Array, choices: tuple[str, ...]) -> Mask:
    return _bools(pc.is_in(values, value_set=pa.array([choice.lower() for choice in choices], pa.string())))


def _refuse_repeated(table: pa.Table, findings: Findings, seen: SeenIds) -> None:
    good = np.flatnonzero(~findings.broken)
    ids = table.column("transaction_id").combine_chunks().take(pa.array(good))
    repeated = np.zeros(table.num_rows, dtype=bool)
    repeated[good] = seen.repeated(ids)
    findings.add(repeated, "transaction_id", "repeats that of an earlier row")


def _write_days(writer: DatasetWriter, stage: DayStage, mapping: Mapping) -> None:
    place = 0
    source = mapping.label.source if mapping.label else "import"
    for day in stage.days():
        sequence = pa.array(np.arange(place, place + day.num_rows))
        place += day.num_rows
        transactions = conform(day.append_column("ingest_seq", sequence), TRANSACTION_SCHEMA)
        reported = day.filter(day.column("reported"))
        arrays = [
            reported.column(name)
            for name in ("transaction_id", "event_timestamp", "known_timestamp", "is_fraud")
        ]
        sources = pa.array([source] * reported.num_rows, pa.string())
        labels = pa.table([*arrays, sources], schema=LABEL_SCHEMA)
        frauds = day.filter(day.column("is_fraud")) if mapping.ground_truth else day.slice(0, 0)
        nothing = pa.nulls(frauds.num_rows)
        truth = pa.table(
            {
                "transaction_id": frauds.column("transaction_id"),
                "event_timestamp": frauds.column("event_timestamp"),
                "type": frauds.column("type"),
                "stealthy": nothing,
                "episode": nothing,
            }
        )
        writer.add(transactions, labels, truth)


def _label_policy(mapping: Mapping) -> dict[str, object]:
    label = mapping.label
    if label is None or label.delay is None:
        return {"kind": "known_at"}
    return {"kind": "fixed", "delay_days": label.delay.total_seconds() / 86_400}


def _bools(values: pa.Array) -> Mask:
    return np.array(values.to_numpy(zero_copy_only=False), dtype=bool)


if __name__ == "__main__":
    sys.exit(main())
