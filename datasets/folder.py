"""A dataset folder: what the generator and the importer write, and `datasets.load` reads.

    transactions/YYYY-MM-DD.parquet   TRANSACTION_SCHEMA, by event time, one file per UTC date
    labels/YYYY-MM-DD.parquet         LABEL_SCHEMA, by date of the transaction
    ground_truth.parquet              what each fraud really was; never a feature
    drift.json                        changes of the world and their dates
    dataset.json                      name, counts, first and last event, label policy, seed
    rejects.parquet                   rows that broke the contract (importer only)

A folder appears whole or not at all: it is written beside its place and then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stores.lake import (
    LABEL_SCHEMA,
    LABELS,
    TIMESTAMP,
    TRANSACTION_SCHEMA,
    TRANSACTIONS,
    conform,
    epoch_us,
    moment,
)
from stores.lake_files import write_parquet

#: What a fraud really was: its type, whether it leaves any trace, and the attack it belongs to.
GROUND_TRUTH_SCHEMA: Final = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("event_timestamp", TIMESTAMP),
        ("type", pa.string()),
        ("stealthy", pa.bool_()),
        ("episode", pa.string()),
    ]
)
INFO: Final = "dataset.json"
_DAY_US: Final = 86_400_000_000


class DatasetError(ValueError):
    """A dataset folder that cannot be read or written; the text says what to do."""


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What dataset.json says. `start` and `end` are the first and last event times (UTC)."""

    name: str
    rows: int
    frauds: int
    rejected: int
    start: str | None
    end: str | None
    label_policy: dict[str, Any]
    seed: int | None = None
    source: dict[str, Any] = field(default_factory=dict)


class DatasetWriter:
    """Writes one dataset folder, day after day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._truth: list[pa.Table] = []
        self._rows = self._frauds = 0
        self._first: int | None = None
        self._last: int | None = None

    def add(self, transactions: pa.Table, labels: pa.Table, truth: pa.Table) -> None:
        """Append whole days: `transactions` by event time and later than all before them."""
        transactions, labels = conform(transactions, TRANSACTION_SCHEMA), conform(labels, LABEL_SCHEMA)
        times = epoch_us(transactions.column("event_timestamp"))
        if times.size:
            if (np.diff(times) < 0).any() or (self._last is not None and times[0] < self._last):
                raise DatasetError("transactions should come in the order of their events")
            self._first = int(times[0]) if self._first is None else self._first
            self._last = int(times[-1])
        self._write(TRANSACTIONS, transactions)
        self._write(
            LABELS, labels.take(np.argsort(epoch_us(labels.column("event_timestamp")), kind="stable"))
        )
        self._truth.append(truth.cast(GROUND_TRUTH_SCHEMA))
        self._rows += transactions.num_rows
        self._frauds += int(np.count_nonzero(labels.column("is_fraud").to_numpy()))

    def _write(self, kind: str, table: pa.Table) -> None:
        days = epoch_us(table.column("event_timestamp")) // _DAY_US
        distinct, first = np.unique(days, return_index=True)
        bounds = [*first.tolist(), table.num_rows]
        for place, day in enumerate(distinct.tolist()):
            rows = table.slice(bounds[place], bounds[place + 1] - bounds[place])
            write_parquet(
                rows, self.folder / kind / f"{moment(day * _DAY_US):%Y-%m-%d}.parquet", durable=False
            )

    def finish(
        self,
        name: str,
        *,
        label_policy: dict[str, Any],
        rejected: int = 0,
        seed: int | None = None,
        source: dict[str, Any] | None = None,
        drift: list[dict[str, str]] | None = None,
    ) -> DatasetInfo:
        """Write the ground truth, drift.json and dataset.json."""
        for kind in (TRANSACTIONS, LABELS):
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
        truth = pa.concat_tables([GROUND_TRUTH_SCHEMA.empty_table(), *self._truth])
        write_parquet(truth, self.folder / "ground_truth.parquet")
        _write_json(self.folder / "drift.json", drift or [])
        info = DatasetInfo(
            name=name,
            rows=self._rows,
            frauds=self._frauds,
            rejected=rejected,
            start=_text(self._first),
            end=_text(self._last),
            label_policy=label_policy,
            seed=seed,
            source=source or {},
        )
        _write_json(self.folder / INFO, asdict(info))
        return info


@contextmanager
def new_dataset(out: Path) -> Iterator[DatasetWriter]:
    """A writer whose folder becomes `out`, replacing an earlier dataset there, if all goes well.

    Raises DatasetError when `out` holds anything that is not a dataset.
    """
    if out.exists() and not (out / INFO).exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError(f"{out} exists and is not a dataset folder; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield DatasetWriter(unfinished)
        if out.exists():
            shutil.rmtree(out)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_info(folder: Path) -> DatasetInfo:
    """What dataset.json of `folder` says; DatasetError if there is none."""
    path = folder / INFO
    if not path.is_file():
        raise DatasetError(
            f"{folder} holds no {INFO}; make a dataset with datasets.synthetic or datasets.importer"
        )
    return DatasetInfo(**json.loads(path.read_text(encoding="utf-8")))


def transaction_files(folder: Path) -> list[Path]:
    """The transaction files of a dataset, oldest first."""
    return sorted((folder / TRANSACTIONS).glob("[!._]*.parquet"))


def read_dataset_transactions(folder: Path) -> pa.Table:
    """All transactions of a dataset, by event time."""
    return _read([pq.read_table(path) for path in transaction_files(folder)], TRANSACTION_SCHEMA)


def read_dataset_labels(folder: Path) -> pa.Table:
    """All labels of a dataset, whenever they became known."""
    return _read(
        [pq.read_table(path) for path in sorted((folder / LABELS).glob("[!._]*.parquet"))], LABEL_SCHEMA
    )


def utc_text(when: datetime) -> str:
    """RFC 3339 with milliseconds and Z."""
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *[conform(table, schema) for table in tables]])


def _text(us: int | None) -> str | None:
    return None if us is None else utc_text(moment(us))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
