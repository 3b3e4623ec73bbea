"""Anybody's data as a dataset folder: `python -m datasets.importer --data ... --mapping ...`.

CSV, parquet, JSON lines and XML. Rows that break the contract go to rejects.parquet with the field and the
reason, without card numbers or anything personal; the run says how many. Batches of bounded size; the
input may be in any order. `--suggest FILE` writes a mapping to edit instead (`datasets.suggest`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from datasets.convert import convert
from datasets.fields import MappingError
from datasets.folder import DatasetError, DatasetInfo, DatasetWriter, new_dataset
from datasets.joins import open_join
from datasets.mapping import Mapping, load_mapping
from datasets.rejects import RejectsFile
from datasets.remarks import remarks
from datasets.shipped import mapping_path
from datasets.sources import read_batches, source_files
from datasets.staging import DayStage, SeenIds
from datasets.tokens import TokenKeyError
from datasets.validity import Findings
from stores.lake import LABEL_SCHEMA, TRANSACTION_SCHEMA, conform

Progress = Callable[[str], None]


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
    join = open_join(data, mapping)
    files = [file for file in source_files(data) if join is None or file != join.path]
    needed = mapping.columns() if join is None else join.needed_of_data(mapping.columns())
    with new_dataset(out) as writer:
        stage, seen = DayStage(writer.folder / ".stage"), SeenIds()
        left_out: Counter[str] = Counter()
        with RejectsFile(writer.folder / "rejects.parquet", mapping) as rejects:
            rows = 0
            for file in files:
                for source in read_batches(file, mapping.source, needed, data):
                    rejects.add_lines(source.file, source.bad_lines)
                    batch = source.batch if join is None else join.joined(source.batch)
                    table, findings = convert(batch, mapping, first_row=rows)
                    _refuse_repeated(table, findings, seen)
                    rejects.add(source, batch, findings)
                    left_out += findings.left_out
                    stage.add(table.filter(pa.array(findings.kept)))
                    rows += batch.num_rows
                    progress(f"{rows:,} rows read, {rejects.count:,} rejected")
        everything = rows + sum(count for (field, _), count in rejects.reasons.items() if field == "(row)")
        if rejects.count > most_rejected * everything:
            raise TooManyRejects(rejects, everything, most_rejected)
        _write_days(writer, stage, mapping)
        label = mapping.label
        info = writer.finish(
            mapping.name,
            label_policy=_label_policy(mapping) if label else {"kind": "none"},
            rejected=rejects.count,
            source={
                "files": [file.name for file in files],
                "mapping": mapping.name,
                "rejected": rejects.report(),
                "left_out": dict(left_out),
            },
        )
    return info, rejects.reasons


class TooManyRejects(ValueError):
    """More rows were refused than may be; the text says which reason took how many, and what may mend it."""

    def __init__(self, rejects: RejectsFile, rows: int, most: float) -> None:
        lines = [
            f"{rejects.count:,} of {rows:,} rows were refused, more than {most:.1%}; nothing was imported"
        ]
        lines += rejects.lines(5)
        fields = {field for field, _ in rejects.reasons}
        lines += [f"  {hint}" for field, hint in _HINTS.items() if field in fields]
        lines.append("  --most-rejected 1 imports what is left, which may be a biased part")
        super().__init__("\n".join(lines))


_HINTS: Final = {
    "card_id": "card_id: tokenize: true makes tokens of a column; card_numbers: none says it has no cards",
    "customer_id": "customer_id: another column or a template; tokenize: true makes tokens of card numbers",
    "event_time": "event_time: timezone, format, or epoch (s, ms, us, ns, min, h, d, sheet) and an origin",
    "amount": "amount: unit: minor, decimal: ',', thousands, symbol, rounding, or negative: absolute",
    "currency": "currency: values maps a provider's codes to ISO 4217's",
    "channel": "channel: values maps a provider's words to pos, ecom, atm, moto, transfer; default: the rest",
    "transaction_id": "transaction_id: row: true numbers the rows where there is no id",
    "label": "label: fraud and genuine list the words of the column",
    "country": "country: values maps a provider's codes to ISO 3166's two letters",
    "(row)": "source: delimiter, quote and encoding say how the text is written",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.suggest is not None:
        from datasets.suggest import main as suggest

        return suggest(options.suggest, options.out)
    for name in ("data", "mapping", "out"):
        if getattr(options, name) is None:
            parser.error(f"--{name} is needed (or --suggest FILE, which writes a mapping to edit)")
    if not options.data.exists():
        parser.error(f"--data {options.data} does not exist")
    if not 0 <= options.most_rejected <= 1:
        parser.error("--most-rejected should be a share between 0 and 1")
    began = time.monotonic()
    try:
        info, _ = import_data(
            options.data,
            load_mapping(mapping_path(options.mapping)),
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
    for line in remarks(options.out):
        print(f"  {line}")
    if info.rejected:
        print(f"  every rejected row: {options.out / 'rejects.parquet'}")
    return 0 if info.rows else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.importer", description="Import CSV, parquet, JSON lines or XML as a dataset."
    )
    parser.add_argument("--data", type=Path, help="a file, or a folder of them")
    parser.add_argument(
        "--mapping",
        type=Path,
        help="which columns become which fields: a file, or the name of one that is shipped",
    )
    parser.add_argument("--out", type=Path, help="the dataset folder to write or replace")
    parser.add_argument(
        "--most-rejected", type=float, default=0.05, metavar="SHARE",
        help="share of rows that may be refused before the import fails (default 0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--suggest", type=Path, metavar="FILE",
        help="read a sample of FILE and print a commented mapping to edit (to --out, if given)",
    )  # fmt: skip
    return parser


def _refuse_repeated(table: pa.Table, findings: Findings, seen: SeenIds) -> None:
    good = np.flatnonzero(findings.kept)
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


if __name__ == "__main__":
    sys.exit(main())
