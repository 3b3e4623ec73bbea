"""Put a dataset folder into the lake: `python -m datasets.load --dataset DIR --until TIME`.

Transactions before `--until` become history; those after it are left for a replay. All labels
go in, each stamped with when it becomes known, so that nobody sees one before its time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.folder import DatasetError, read_dataset_labels, read_info, transaction_files
from stores.lake import TIMESTAMP, microseconds, replace_transactions, write_labels
from stores.settings import settings


def load(dataset: Path, lake: Path, until: datetime | None = None) -> tuple[int, int]:
    """Load `dataset` into `lake`, replacing what an earlier load of it put there.

    Returns the rows of transactions (event time before `until`, or all) and of labels.
    """
    name = read_info(dataset).name
    before = None if until is None else microseconds(until)
    rows = replace_transactions(_history(dataset, before), lake, name=name)
    labels = read_dataset_labels(dataset)
    write_labels(labels, lake, name=name)
    return rows, labels.num_rows


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with an offset; ValueError without one."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(f"{text!r} should carry an offset, such as 2026-02-01T00:00:00Z")
    return when


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets.load", description="Load a dataset into the lake."
    )
    parser.add_argument("--dataset", type=Path, required=True, help="a dataset folder")
    parser.add_argument("--until", help="only transactions before this time (RFC 3339); default all")
    parser.add_argument("--lake", type=Path, help="default: the lake of TOLLGATE_HOME")
    options = parser.parse_args(arguments)
    lake = options.lake or settings().lake
    try:
        until = None if options.until is None else parse_time(options.until)
        rows, labels = load(options.dataset, lake, until)
    except (ValueError, DatasetError) as error:
        parser.error(str(error))
    print(f"{rows:,} transactions and {labels:,} labels of {options.dataset} are in {lake}")
    return 0


def _history(dataset: Path, before: int | None) -> Iterator[pa.Table]:
    """One table per date, oldest first, of events before `before` (microseconds)."""
    for path in transaction_files(dataset):
        table = pq.read_table(path)
        if before is not None:
            early = pc.field("event_timestamp") < pa.scalar(before, pa.int64()).cast(TIMESTAMP)
            table = table.filter(early)
        if table.num_rows == 0:
            return
        yield table


if __name__ == "__main__":
    sys.exit(main())
