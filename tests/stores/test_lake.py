"""The lake keeps rows exactly, replaces by name and never shows half a file."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.contract.fields import CHANNELS
from fraud.contract.money import MINOR_DIGITS, decimal_amount
from fraud.contract.transaction import Transaction
from stores.lake import (
    LABEL_SCHEMA,
    TRANSACTION_SCHEMA,
    LakeError,
    parquet_history,
    read_labels,
    read_transactions,
    transaction_table,
    transactions_from_table,
    write_labels,
    write_transactions,
)
from stores.lake_files import write_parquet

START = datetime(2026, 1, 1, tzinfo=UTC)


def transaction(number: int, at: datetime, **fields: object) -> Transaction:
    defaults: dict[str, object] = {
        "transaction_id": f"t{number}",
        "event_time": at,
        "customer_id": "c1",
        "card_id": "k1",
        "merchant_id": "m1",
        "amount": Decimal("12.34"),
        "currency": "EUR",
        "channel": "pos",
    }
    return Transaction(**(defaults | fields))  # type: ignore[arg-type]


def hourly(count: int) -> pa.Table:
    return transaction_table(transaction(n, START + timedelta(hours=n)) for n in range(count))


TEXT = st.text("aé-0 😀", min_size=1, max_size=64)


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    currency = draw(st.sampled_from(sorted(MINOR_DIGITS)))
    optional = st.none() | TEXT
    place = draw(st.none() | st.tuples(st.floats(-90, 90), st.floats(-180, 180)))
    milliseconds = draw(st.integers(946_684_800_000, 4_000_000_000_000))
    return Transaction(
        transaction_id=draw(TEXT),
        event_time=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds),
        customer_id="c",
        card_id="k",
        merchant_id="m",
        amount=decimal_amount(draw(st.integers(0, 10**12)), currency),
        currency=currency,
        channel=draw(st.sampled_from(CHANNELS)),
        terminal_id=draw(optional),
        device_id=draw(optional),
        ip=draw(optional),
        merchant_category=draw(optional),
        country=draw(st.none() | st.sampled_from(["DE", "FR"])),
        latitude=place[0] if place else None,
        longitude=place[1] if place else None,
    )


@given(st.lists(transactions(), max_size=5))
def test_transactions_survive_the_table_exactly(rows: list[Transaction]) -> None:
    table = transaction_table(rows, first_seq=7)
    assert table.schema == TRANSACTION_SCHEMA
    assert list(transactions_from_table(table)) == rows
    assert table.column("ingest_seq").to_pylist() == list(range(7, 7 + len(rows)))
    assert table.column("amount_reference").to_pylist() == [row.amount_reference for row in rows]


def test_event_time_is_cut_to_milliseconds_and_known_at_can_be_given() -> None:
    known = START + timedelta(minutes=5)
    table = transaction_table([transaction(1, START + timedelta(microseconds=1999))], created=known)
    assert table.column("event_timestamp")[0].value == 1_767_225_600_001_000
    assert table.column("created_timestamp")[0].as_py() == known


def test_rows_go_to_the_date_of_their_event(tmp_path: Path) -> None:
    files = write_transactions(hourly(30), tmp_path, name="part")
    assert [path.parent.name for path in files] == ["date=2026-01-01", "date=2026-01-02"]
    assert parquet_history(tmp_path) == {date(2026, 1, 1): 24, date(2026, 1, 2): 6}


def test_unordered_rows_keep_their_order_within_a_date(tmp_path: Path) -> None:
    table = hourly(50).take(pa.array([30, 49, 2, 1]))
    write_transactions(table, tmp_path, name="part")
    assert read_transactions(tmp_path).column("transaction_id").to_pylist() == ["t1", "t2", "t30", "t49"]


def test_the_same_name_replaces_on_every_date_and_another_name_adds(tmp_path: Path) -> None:
    write_transactions(hourly(30), tmp_path, name="a")
    write_transactions(hourly(10), tmp_path, name="a")
    assert read_transactions(tmp_path).num_rows == 10
    write_transactions(hourly(10), tmp_path, name="b")
    assert read_transactions(tmp_path).num_rows == 20


def test_a_range_holds_its_start_and_not_its_end(tmp_path: Path) -> None:
    write_transactions(hourly(72), tmp_path, name="a")
    table = read_transactions(tmp_path, START + timedelta(hours=20), START + timedelta(hours=50))
    assert table.column("transaction_id").to_pylist() == [f"t{n}" for n in range(20, 50)]
    assert table.schema == TRANSACTION_SCHEMA
    assert read_transactions(tmp_path / "nothing").num_rows == 0


def labels(*rows: tuple[str, int, bool]) -> pa.Table:
    return pa.table(
        {
            "transaction_id": [row[0] for row in rows],
            "event_timestamp": [START] * len(rows),
            "created_timestamp": [START + timedelta(days=row[1]) for row in rows],
            "is_fraud": [row[2] for row in rows],
            "source": ["chargeback"] * len(rows),
        },
        schema=LABEL_SCHEMA,
    )


def test_only_labels_known_by_then_are_read_and_the_latest_wins(tmp_path: Path) -> None:
    write_labels(labels(("t1", 3, True), ("t2", 5, True), ("t1", 9, False)), tmp_path, name="a")

    def known(days: int) -> dict[str, bool]:
        table = read_labels(tmp_path, START + timedelta(days=days))
        return dict(
            zip(*(table.column(name).to_pylist() for name in ("transaction_id", "is_fraud")), strict=True)
        )

    assert known(2) == {}
    assert known(3) == {"t1": True}
    assert known(8) == {"t1": True, "t2": True}
    assert known(9) == {"t1": False, "t2": True}
    assert read_labels(tmp_path).num_rows == 2


def test_a_table_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    table = hourly(2)
    with pytest.raises(LakeError, match="columns are missing: channel"):
        write_transactions(table.drop_columns(["channel"]), tmp_path, name="a")
    place = table.column_names.index("card_id")
    holed = table.set_column(place, "card_id", pa.array([None, "k1"]))
    with pytest.raises(LakeError, match="card_id holds nulls"):
        write_transactions(holed, tmp_path, name="a")
    with pytest.raises(LakeError, match="file name"):
        write_transactions(table, tmp_path, name="../a")
    with pytest.raises(LakeError, match="offset"):
        read_transactions(tmp_path, datetime(2026, 1, 1))


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(hourly(1), path)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_parquet("not a table", path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
