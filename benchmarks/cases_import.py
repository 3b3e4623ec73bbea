"""The cases of the importer: each CSV and mapping through the command, held to what is right of it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from datasets import importer
from datasets.folder import read_dataset_transactions
from datasets.mapping import load_mapping
from embedded.demo_plan import Options, plan
from fraud.contract.transaction import parse_transaction
from fraud.features.entities import ENTITIES
from fraud.features.on_demand import on_demand
from fraud.features.request import request_row
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState


@dataclass
class Imported:
    """What an import left: its exit code, the rows by id, and the refused rows by id."""

    code: int
    said: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    files: bytes = b""


def run_import(case: Mapping[str, Any], folder: Path, mapping_text: str) -> Imported:
    """Import the case's CSV with its mapping, as the command does."""
    data, mapping, out = folder / "data.csv", folder / "mapping.yaml", folder / "out"
    data.write_text(case["csv"])
    mapping.write_text(mapping_text)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code = importer.main(
                ["--data", str(data), "--mapping", str(mapping), "--out", str(out), "--most-rejected", "1"]
            )
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    found = Imported(code, said.getvalue())
    if out.is_dir():
        found.rows = {row["transaction_id"]: row for row in read_dataset_transactions(out).to_pylist()}
        for row in pq.read_table(out / "rejects.parquet").to_pylist():
            name = json.loads(row["row"]).get("id") or f"row {row['row_number']}"
            found.refused[name] = f"{row['field']}: {row['reason']}"
        found.files = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    return found


def _minor(found: Imported) -> dict[str, int]:
    return {name: row["amount_minor"] for name, row in found.rows.items()}


def _times(found: Imported) -> dict[str, str]:
    return {name: row["event_timestamp"].isoformat() for name, row in found.rows.items()}


def _tokens(found: Imported) -> bool:
    keys = [row["card_id"] for row in found.rows.values()]
    return len(keys) == 2 and all(re.fullmatch("tok_[0-9a-f]{32}", key) for key in keys)


def mean_after_verification() -> float:
    """A customer's mean amount of 24 hours (reference cents) after a purchase of 25 dollars and a zero."""
    place = next(index for index, entity in enumerate(ENTITIES) if entity.name == "customer")
    state = VelocityState(ENTITIES[place])
    for hour, amount in enumerate(("25.00", "0.00")):
        body = {"transaction_id": f"t-{hour}", "event_time": f"2026-02-19T1{hour}:00:00Z", "amount": amount}
        state.add(observe(parse_transaction(json.dumps(_PAYMENT | body).encode())), place)
    later = _PAYMENT | {"transaction_id": "t-9", "event_time": "2026-02-19T12:00:00Z", "amount": "25.00"}
    request = request_row(parse_transaction(json.dumps(later).encode()))
    inputs: dict[str, list[Any]] = {name: [value] for name, value in request.items()}
    return on_demand(inputs | {ENTITIES[place].state_feature: [state.pack()]})["customer_amount_mean_24h"][0]


_PAYMENT: Final = {
    "customer_id": "c1", "card_id": "k1", "merchant_id": "m1", "currency": "USD", "channel": "ecom",
}  # fmt: skip

#: What is right of each import, by the case's name.
IMPORTS: Final[dict[str, Callable[[Imported], bool]]] = {
    "card_number_as_key": _tokens,
    "decimal_comma": lambda found: (
        _minor(found) == {"a1": 1234, "a3": 123450, "a4": 123400} and "a2" in found.refused
    ),
    "words_for_nothing": lambda found: (
        {row["device_id"] for row in found.rows.values()} == {None}
        and len(found.rows) == 4
        and found.refused["a5"].startswith("customer_id: is missing")
    ),
    "times_of_databases": lambda found: (
        [row["event_timestamp"].second for row in found.rows.values()] == [0, 1, 2, 3, 4, 5]
    ),
    "zone_name_in_a_format": lambda found: found.code != 0 and "%Z" in found.said,
    "milliseconds_among_seconds": lambda found: (
        list(found.rows) == ["a1"] and "ms instead of s" in found.refused["a2"] and "a3" in found.refused
    ),
    "yaml_reads_036_and_NO": lambda found: (
        [(row["currency"], row["country"], row["channel"]) for row in found.rows.values()]
        == [("AUD", "NO", "ecom"), ("EUR", "NO", "pos")]
    ),
    "labels_as_floats": lambda found: len(found.rows) == 3 and "1 frauds" in found.said,
    "seconds_since_the_first": lambda found: found.code == 0 and len(found.rows) == 2,
    "hours_as_time": lambda found: (
        found.code == 0 and len(found.rows) == 2 and "share their time" in found.said
    ),
    "minor_units_of_a_provider": lambda found: _minor(found) == {"a1": 10, "a2": 100_000},
    "refunds_in_the_file": lambda found: (
        list(found.rows) == ["a1", "a3"]
        and "a refund or reversal is no payment" in found.refused["a2"]
        and mean_after_verification() == 2500
    ),
    "imei_as_device": lambda found: len(found.rows) == 2,
}


def _most_refused(folder: Path, mapping: str) -> bool:
    data, out = folder / "data.csv", folder / "out"
    rows = [f"a{place},2019-01-01T00:00:10Z,c1,m1,{'1.00' if place < 10 else 'x'}" for place in range(100)]
    data.write_text("\n".join(["id,ts,cust,mer,amt", *rows]) + "\n")
    (folder / "mapping.yaml").write_text(mapping)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = importer.main(
            ["--data", str(data), "--mapping", str(folder / "mapping.yaml"), "--out", str(out)]
        )
    return code == 1 and "90 of 100 rows" in said.getvalue() and not out.exists()


def _columns(folder: Path, mapping: str, path: str, **columns: Any) -> dict[str, int]:
    """Minor units by id of an import of parquet columns that lie at `path`."""
    file = folder / "data" / path
    file.parent.mkdir(parents=True)
    rows = len(next(iter(columns.values())))
    base = {"id": [f"a{place}" for place in range(rows)], "ts": ["2019-01-01T00:00:10Z"] * rows}
    base |= {"cust": ["c1"] * rows, "mer": ["m1"] * rows}
    pq.write_table(pa.table(base | columns), file)
    (folder / "mapping.yaml").write_text(mapping)
    _info, _ = importer.import_data(folder / "data", load_mapping(folder / "mapping.yaml"), folder / "out")
    return {row["transaction_id"]: row["amount_minor"]
            for row in read_dataset_transactions(folder / "out").to_pylist()}  # fmt: skip


def _every_currency(folder: Path, mapping: str) -> bool:
    codes = ["NGN", "COP", "ARS", "EGP", "JOD", "XOF", "UAH", "KES", "PKR", "MAD"]
    with_column = mapping.replace('{"constant": "EUR"}', '"cur"')
    found = _columns(folder, with_column, "a.parquet", amt=["5"] * len(codes), cur=codes)
    return [found[f"a{place}"] for place in range(10)] == [500, 500, 500, 500, 5000, 5, 500, 500, 500, 500]


def _lonely_year(folder: Path, mapping: str) -> bool:
    """60 days of 2018 and a row of 2025: the import names the row, the demo plans by where the data are."""
    days = [date(2018, 1, 1) + timedelta(days=day) for day in range(60)]
    rows = [f"a{day:%m%d},{day}T00:00:10Z,c1,m1,1.00" for day in days]
    data, out = folder / "data.csv", folder / "out"
    data.write_text("\n".join(["id,ts,cust,mer,amt", *rows, "odd,2025-06-01T00:00:00Z,c1,m1,1.00"]) + "\n")
    (folder / "mapping.yaml").write_text(mapping)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        importer.main(["--data", str(data), "--mapping", str(folder / "mapping.yaml"), "--out", str(out)])
    planned = plan(out, Options(data=data), timedelta(days=7))
    return "odd of 2025-06-01" in said.getvalue() and planned.replay_to.date() == date(2018, 3, 2)


#: Imports that need other files than a CSV.
OTHERS: Final[dict[str, Callable[[Path, str], bool]]] = {
    "most_rows_refused": _most_refused,
    "lonely_year": _lonely_year,
    "amounts_as_float32": lambda folder, mapping: (
        _columns(folder, mapping, "a.parquet", amt=pa.array([149.62, 4.97, 16777217.01], pa.float32()))
        == {"a0": 14962, "a1": 497}
    ),
    "every_currency": _every_currency,
    "partition_folders": lambda folder, mapping: (
        _columns(folder, mapping, "date=2019-01-01/part-0.snappy.parquet", amt=["1.00"]) == {"a0": 100}
    ),
}


def _mapping_text(text: str, case: Mapping[str, Any]) -> str:
    """The case's mapping over the base, with its scalars as they stand in the file."""
    plain = yaml.load(text, yaml.BaseLoader)
    own: dict[str, Any] = next(
        (each.get("mapping", {}) for each in plain["cases"] if each["name"] == case["name"]), {}
    )
    made = dict(plain["base_mapping"])
    fields, header = dict(made["fields"]), case["csv"].splitlines()[0]
    for name, value in own.items():
        if name in ("source", "label"):
            made[name] = value
        else:
            fields[name] = value
    if "cust" not in header:  # other people's columns: what they lack is constant here
        fields |= {
            "customer_id": {"constant": "c"},
            "card_id": {"constant": "k"},
            "merchant_id": {"constant": "m"},
        }
        if "nameOrig" in header:
            fields |= {
                "customer_id": "nameOrig",
                "merchant_id": "nameDest",
                "transaction_id": {"row": "true"},
            }
            fields["card_id"] = {"template": "k-{nameOrig}"}
        fields["amount"] = "Amount" if "Amount" in header else "amount" if "amount" in header else "amt"
    if "cc_num" in header:
        fields |= {"merchant_id": "mer"} | own
    return json.dumps(made | {"fields": fields})


def try_case(case: Mapping[str, Any], text: str) -> tuple[bool, str] | None:
    """Whether the case is held, and what was seen; None without a check. `text` is its whole file."""
    name = case["name"]
    if name in IMPORTS and "csv" in case:
        with tempfile.TemporaryDirectory() as work:
            result = run_import(case, Path(work), _mapping_text(text, case))
        seen = f"exit {result.code}, {len(result.rows)} rows, refused {result.refused}"
        return IMPORTS[name](result), seen if result.code == 0 else result.said.strip().splitlines()[-1]
    if name in OTHERS:
        with tempfile.TemporaryDirectory() as work:
            mapping = json.dumps(yaml.load(text, yaml.BaseLoader)["base_mapping"])
            return OTHERS[name](Path(work), mapping), "own input of this kind"
    return None
