"""What the tests of imports share: a mapping to change, and an import through the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from datasets.folder import read_dataset_transactions
from datasets.importer import main

CARD_NUMBER = "4" + "1" * 15
BASE: dict[str, Any] = {
    "transaction_id": "id", "event_time": {"column": "ts", "timezone": "UTC"}, "customer_id": "cust",
    "card_id": {"template": "k-{cust}"}, "merchant_id": "mer", "amount": "amt",
    "currency": {"constant": "EUR"}, "channel": {"constant": "ecom"},
}  # fmt: skip


class Imported(NamedTuple):
    """Exit code, rows, and refused rows of an import."""

    code: int
    rows: list[dict[str, Any]]
    refused: list[dict[str, Any]]

    @property
    def ids(self) -> list[str]:
        return [row["transaction_id"] for row in self.rows]

    @property
    def minor(self) -> list[int]:
        return [row["amount_minor"] for row in self.rows]

    @property
    def times(self) -> list[str]:
        return [row["event_timestamp"].isoformat() for row in self.rows]

    @property
    def reasons(self) -> list[str]:
        return [f"{row['field']}: {row['reason']}" for row in self.refused]


def import_file(data: Path, folder: Path, *arguments: str, others: Any = None, **fields: Any) -> Imported:
    """Import `data` by the usual mapping with `fields` changed; `others` are parts beside the fields."""
    mapping = {"name": "t", "fields": {k: v for k, v in (BASE | fields).items() if v is not None}}
    (folder / "m.yaml").write_text(json.dumps(mapping | (others or {})))
    out = folder / "out"
    named = ["--data", str(data), "--mapping", str(folder / "m.yaml"), "--out", str(out)]
    try:
        code = main([*named, *(arguments or ("--most-rejected", "1"))])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    if not out.exists():
        return Imported(code, [], [])
    refused = pq.read_table(out / "rejects.parquet").to_pylist()
    return Imported(code, read_dataset_transactions(out).to_pylist(), refused)


def import_text(text: str, folder: Path, *arguments: str, others: Any = None, **fields: Any) -> Imported:
    """Import the CSV `text`."""
    (folder / "data.csv").write_text(text)
    return import_file(folder / "data.csv", folder, *arguments, others=others, **fields)


def one(value: str, column: str, folder: Path, **fields: Any) -> Imported:
    """Import one row in whose `column` stands `value`."""
    row = {"id": "a1", "ts": "2019-01-01T00:00:10Z", "cust": "c1", "mer": "m1", "amt": "1.00"} | {
        column: value
    }
    quoted = ",".join('"' + each.replace('"', '""') + '"' for each in row.values())
    return import_text(",".join(row) + "\n" + quoted + "\n", folder, **fields)
