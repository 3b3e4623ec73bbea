"""The importer takes exact amounts and zoned times, and says of every bad row what is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets import importer
from datasets.fields import MappingError
from datasets.folder import read_dataset_labels, read_dataset_transactions, read_info
from datasets.importer import import_data, main
from datasets.mapping import Mapping, load_mapping
from stores.lake import transactions_from_table

HANDBOOK = Path(importer.__file__).parent / "mappings" / "handbook.yaml"
CARD_NUMBER = "4" + "1" * 15

MAPPING = """
name: bank
fields:
  transaction_id: id
  event_time: {column: at, timezone: Europe/Berlin}
  customer_id: {template: "c-{customer}"}
  card_id: token
  merchant_id: shop
  amount: amount
  currency: currency
  channel: {column: how, values: {P: pos, W: ecom}}
  country: country
  latitude: lat
  longitude: lon
label: {column: fraud, fraud: [Y], genuine: [N], delay: 2d}
"""
HEADER = "id,at,customer,token,shop,amount,currency,how,country,lat,lon,fraud"
GOOD = "t1,2026-01-05 12:00:00,7,k1,m1,12.34,EUR,P,DE,52.5,13.4,N"


def mapping(text: str = MAPPING) -> Mapping:
    import yaml

    return Mapping.model_validate(yaml.safe_load(text))


def line(**changes: str) -> str:
    row = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | changes
    return ",".join(row.values())


def run(tmp_path: Path, *lines: str, text: str = MAPPING) -> tuple[Path, list[dict[str, Any]]]:
    source = tmp_path / "in.csv"
    source.write_text("\n".join((HEADER, *lines)) + "\n")
    out = tmp_path / "out"
    import_data(source, mapping(text), out)
    return out, pq.read_table(out / "rejects.parquet").to_pylist()


def amounts(out: Path) -> list[Decimal]:
    return [row.amount for row in transactions_from_table(read_dataset_transactions(out))]


def test_a_csv_becomes_a_dataset_folder(tmp_path: Path) -> None:
    out, rejects = run(tmp_path, line(id="t2", at="2026-01-06T01:00:00+05:30", fraud="Y"), GOOD)
    assert rejects == []
    first, second = transactions_from_table(read_dataset_transactions(out))
    assert (first.transaction_id, second.transaction_id) == ("t1", "t2")
    assert first.event_time == datetime(2026, 1, 5, 11, 0, tzinfo=UTC)  # Berlin is an hour ahead
    assert second.event_time == datetime(2026, 1, 5, 19, 30, tzinfo=UTC)
    assert (first.customer_id, first.channel, first.amount) == ("c-7", "pos", Decimal("12.34"))
    assert first.terminal_id is None
    (label,) = read_dataset_labels(out).to_pylist()
    assert label["transaction_id"] == "t2"
    assert label["created_timestamp"] == datetime(2026, 1, 7, 19, 30, tzinfo=UTC)
    info = read_info(out)
    assert (info.rows, info.frauds, info.rejected) == (2, 1, 0)
    assert info.label_policy == {"kind": "fixed", "delay_days": 2.0}


BROKEN = [
    ("transaction_id", {"id": ""}),
    ("transaction_id", {"id": "x" * 65}),
    ("event_time", {"at": ""}),
    ("event_time", {"at": "soon"}),
    ("event_time", {"at": "2026-02-30 10:00:00"}),
    ("event_time", {"at": "2026-03-29 02:30:00"}),  # Berlin's clocks go forward over it
    ("event_time", {"at": "1999-12-31 10:00:00"}),
    ("customer_id", {"customer": ""}),
    ("card_id", {"token": ""}),
    ("merchant_id", {"shop": ""}),
    ("amount", {"amount": ""}),
    ("amount", {"amount": "-1.00"}),
    ("amount", {"amount": "1.005"}),
    ("amount", {"amount": "twelve"}),
    ("amount", {"amount": "NaN"}),
    ("amount", {"amount": "99999999999.00"}),
    ("currency", {"currency": "XXX"}),
    ("currency", {"currency": ""}),
    ("channel", {"how": "carrier pigeon"}),
    ("channel", {"how": ""}),
    ("country", {"country": "Germany"}),
    ("country", {"country": "de"}),
    ("latitude", {"lat": "95"}),
    ("latitude", {"lat": "north"}),
    ("latitude", {"lat": ""}),
    ("longitude", {"lon": "-180.5"}),
    ("longitude", {"lon": ""}),
    ("label", {"fraud": "maybe"}),
    ("card_id", {"token": CARD_NUMBER}),
    ("merchant_id", {"shop": "at 4111-1111-1111-1111".replace("4111-1111-1111-1111", CARD_NUMBER)}),
    ("customer_id", {"customer": CARD_NUMBER}),
]


@pytest.mark.parametrize(("field", "changes"), BROKEN, ids=str)
def test_a_broken_row_is_rejected_by_the_name_of_its_field(
    field: str, changes: dict[str, str], tmp_path: Path
) -> None:
    out, rejects = run(tmp_path, GOOD, line(**({"id": "t2"} | changes)), line(id="t3"))
    assert [(row["row_number"], row["field"]) for row in rejects] == [(2, field)], rejects
    assert read_info(out).rows == 2
    assert CARD_NUMBER not in json.dumps(rejects)
    assert json.loads(rejects[0]["row"])["currency"] == (changes.get("currency", "EUR") or None)


def test_no_card_number_reaches_any_file(tmp_path: Path) -> None:
    grouped = "-".join(CARD_NUMBER[place : place + 4] for place in range(0, 16, 4))
    out, rejects = run(
        tmp_path, GOOD, line(id="t2", token=grouped), line(id="t3", how=CARD_NUMBER), "t4," + CARD_NUMBER
    )
    assert len(rejects) == 3
    for row in rejects:
        assert "[card number]" in row["row"]
    for path in out.rglob("*.parquet"):
        text = json.dumps(pq.read_table(path).to_pylist(), default=str)
        assert CARD_NUMBER not in text and grouped not in text


def test_a_repeated_id_is_rejected_and_the_first_stays(tmp_path: Path) -> None:
    out, rejects = run(tmp_path, GOOD, line(amount="99.00"), line(id="t2"))
    assert [(row["row_number"], row["field"], row["reason"]) for row in rejects] == [
        (2, "transaction_id", "repeats that of an earlier row")
    ]
    assert amounts(out) == [Decimal("12.34"), Decimal("12.34")]


def test_lines_with_too_few_or_too_many_columns_are_rejected_with_their_numbers(tmp_path: Path) -> None:
    out, rejects = run(tmp_path, "a,b", GOOD, GOOD + ",more", line(id="t2"), line(id="t3", amount="x"))
    assert read_info(out).rows == 2
    assert sorted((row["row_number"], row["field"]) for row in rejects) == [
        (1, "(row)"),
        (3, "(row)"),
        (5, "amount"),
    ]


def test_an_hour_that_occurs_twice_means_its_first_occurrence(tmp_path: Path) -> None:
    out, rejects = run(tmp_path, line(at="2026-10-25 02:30:00"))
    assert not rejects
    (row,) = transactions_from_table(read_dataset_transactions(out))
    assert row.event_time == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_a_time_without_offset_needs_a_timezone(tmp_path: Path) -> None:
    bare = MAPPING.replace("{column: at, timezone: Europe/Berlin}", "at")
    _, rejects = run(tmp_path, GOOD, line(id="t2", at="2026-01-05T12:00:00Z"), text=bare)
    assert [row["reason"] for row in rejects] == ["has no offset, and the mapping names no timezone"]


@pytest.mark.parametrize(
    ("event", "value"),
    [
        ("{column: at, epoch: s}", "1767614400.5"),
        ("{column: at, epoch: ms}", "1767614400500"),
        ("{column: at, epoch: ns}", "1767614400500999999"),
        ('{column: at, format: "%d.%m.%Y %H:%M:%S.%f", timezone: UTC}', "05.01.2026 12:00:00.500"),
        ('{column: at, format: "%d.%m.%Y %H:%M:%S.%f%z"}', "05.01.2026 14:00:00.500+0200"),
        ("at", "2026-01-05T12:00:00.500999Z"),
        ("at", "2026-01-05 14:00:00.5+02:00"),
    ],
)
def test_times_of_many_kinds_mean_the_same_millisecond(event: str, value: str, tmp_path: Path) -> None:
    text = MAPPING.replace("{column: at, timezone: Europe/Berlin}", event)
    out, rejects = run(tmp_path, line(at=value), text=text)
    assert not rejects
    (row,) = transactions_from_table(read_dataset_transactions(out))
    assert row.event_time == datetime(2026, 1, 5, 12, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "currency", "value", "expected"),
    [
        ("amount", "EUR", "5", "5.00"),
        ("amount", "EUR", " 57.160 ", "57.16"),
        ("amount", "JPY", "1500", "1500"),
        ("amount", "KWD", "1.234", "1.234"),
        ("amount", "EUR", "0", "0.00"),
        ("{column: amount, unit: minor}", "EUR", "1234", "12.34"),
        ("{column: amount, unit: minor}", "JPY", "1234", "1234"),
        ('{column: amount, decimal: ","}', "EUR", '"1.234,56"', "1234.56"),
    ],
)
def test_amounts_are_exact_in_every_notation(
    amount: str, currency: str, value: str, expected: str, tmp_path: Path
) -> None:
    text = MAPPING.replace("amount: amount", f"amount: {amount}")
    out, rejects = run(tmp_path, line(amount=value, currency=currency), text=text)
    assert not rejects
    assert [str(each) for each in amounts(out)] == [expected]


def handbook_frame() -> pa.Table:
    return pa.table(
        {
            "TRANSACTION_ID": pa.array([1, 0, 2, 3]),
            "TX_DATETIME": pa.array(
                [
                    datetime(2018, 4, 1, 0, 2, 10),
                    datetime(2018, 4, 1, 0, 0, 31),
                    datetime(2018, 4, 2),
                    datetime(2018, 4, 3),
                ],
                pa.timestamp("ns"),
            ),
            "CUSTOMER_ID": pa.array([4961, 596, 596, 2]),
            "TERMINAL_ID": pa.array([3412, 3156, 3156, 9]),
            "TX_AMOUNT": pa.array([81.51, 57.16, 0.0, 2628.0]),
            "TX_TIME_SECONDS": pa.array([130, 31, 86400, 172800]),
            "TX_TIME_DAYS": pa.array([0, 0, 1, 2]),
            "TX_FRAUD": pa.array([0, 0, 0, 1]),
            "TX_FRAUD_SCENARIO": pa.array([0, 0, 0, 2]),
        }
    )


def test_the_handbook_mapping_reads_the_handbooks_columns(tmp_path: Path) -> None:
    pq.write_table(handbook_frame(), tmp_path / "in.parquet")
    out = tmp_path / "out"
    assert main(["--data", str(tmp_path / "in.parquet"), "--mapping", str(HANDBOOK), "--out", str(out)]) == 0
    table = read_dataset_transactions(out)
    first, _, third, fourth = transactions_from_table(table)
    assert first.transaction_id == "hb-0"
    assert first.event_time == datetime(2018, 4, 1, 0, 0, 31, tzinfo=UTC)
    assert (first.customer_id, first.card_id) == ("cust-596", "card-596")
    assert (first.merchant_id, first.terminal_id) == ("merch-3156", "term-3156")
    assert (first.amount, first.currency, first.channel) == (Decimal("57.16"), "USD", "pos")
    assert third.amount == 0  # a card verification
    assert table.column("ingest_seq").to_pylist() == [0, 1, 2, 3]
    (label,) = read_dataset_labels(out).to_pylist()
    assert label["transaction_id"] == fourth.transaction_id
    assert label["created_timestamp"] == datetime(2018, 4, 10, tzinfo=UTC)
    (truth,) = pq.read_table(out / "ground_truth.parquet").to_pylist()
    assert truth["type"] == "compromised_terminal"
    assert not any("SCENARIO" in name.upper() for name in table.column_names)


def test_csv_and_parquet_of_the_same_rows_give_the_same_dataset(tmp_path: Path) -> None:
    import pyarrow.csv as pacsv

    pq.write_table(handbook_frame(), tmp_path / "in.parquet")
    pacsv.write_csv(handbook_frame(), tmp_path / "in.csv")
    tables = []
    for name in ("in.parquet", "in.csv"):
        import_data(tmp_path / name, load_mapping(HANDBOOK), tmp_path / f"out-{name}")
        tables.append(read_dataset_transactions(tmp_path / f"out-{name}"))
    assert tables[0].equals(tables[1])


def test_a_folder_in_any_order_comes_out_in_event_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.batches.BATCH_ROWS", 64)
    monkeypatch.setattr("datasets.importer.DayStage.__init__.__defaults__", (100,))
    rng = np.random.default_rng(0)
    seconds = rng.permutation(900) * 600
    frame = pa.table(
        {
            "TRANSACTION_ID": pa.array(np.arange(900)),
            "TX_DATETIME": pa.array(seconds * 1_000_000_000 + 1_522_540_800 * 10**9).cast(pa.timestamp("ns")),
            "CUSTOMER_ID": pa.array(np.arange(900) % 7),
            "TERMINAL_ID": pa.array(np.arange(900) % 5),
            "TX_AMOUNT": pa.array(np.arange(900) / 100),
            "TX_FRAUD": pa.array(np.zeros(900, dtype=np.int64)),
            "TX_FRAUD_SCENARIO": pa.array(np.zeros(900, dtype=np.int64)),
        }
    )
    (tmp_path / "in").mkdir()
    for part in range(3):
        pq.write_table(frame.slice(part * 300, 300), tmp_path / "in" / f"{part}.parquet")
    info, _ = import_data(tmp_path / "in", load_mapping(HANDBOOK), tmp_path / "out")
    table = read_dataset_transactions(tmp_path / "out")
    assert info.rows == table.num_rows == 900
    times = table.column("event_timestamp").cast(pa.int64()).to_numpy()
    assert (np.diff(times) > 0).all()
    assert not (tmp_path / "out" / ".stage").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("amount: amount", "amount: {unit: major}"), "exactly one of column, constant or template"),
        (("  currency: currency\n", ""), "the contract also needs currency"),
        (("  country: country", "  colour: country"), "colour are not in the contract"),
        (("Europe/Berlin", "Mars/Olympus"), "is not a time zone"),
        (("delay: 2d", "delay: soon"), "a number and a unit, such as 7d"),
        ((", delay: 2d", ""), "either delay or known_at"),
        (("name: bank", "name: bank\nother: 1"), "other"),
    ],
)
def test_a_wrong_mapping_is_explained(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(MAPPING.replace(*change))
    with pytest.raises(MappingError, match=message):
        load_mapping(path)


def test_missing_columns_are_named_and_nothing_is_left_behind(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,at\n1,2\n")
    with pytest.raises(MappingError, match=r"lacks the columns amount, .* it has id, at"):
        import_data(source, mapping(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_known_at_column_stamps_each_label(tmp_path: Path) -> None:
    text = MAPPING.replace("country: country", "country: {constant: DE}").replace(
        "delay: 2d", "known_at: {column: country, timezone: UTC}"
    )
    out, rejects = run(
        tmp_path,
        line(fraud="Y", country="2026-02-01T00:00:00"),
        line(id="t2", fraud="Y", country=""),
        line(id="t3", fraud="Y", country="2025-02-01"),
        line(id="t4", country=""),
        text=text,
    )
    assert [(row["field"], row["reason"]) for row in rejects] == [
        ("label", "has no time at which it became known"),
        ("label", "became known before its transaction"),
    ]
    (label,) = read_dataset_labels(out).to_pylist()
    assert label["created_timestamp"] == datetime(2026, 2, 1, tzinfo=UTC)


def test_importing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        out, _ = run(tmp_path, GOOD, line(id="t2", amount="x"), line(id="t3", fraud="Y"))
        contents.append({path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert contents[0] == contents[1]
