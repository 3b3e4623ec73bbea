"""One thing written in the ways that databases, providers, spreadsheets and programs write it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.folder import read_dataset_labels
from stores.settings import settings
from tests.datasets.imports import import_file, import_text, one

NEW_YEAR = "2019-01-01T00:00:02+00:00"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.parametrize(
    "written",
    [
        "2019-01-01 00:00:02.000 +0000",  # Snowflake
        "2019-01-01 00:00:02+00:00",  # Python's str()
        "2019-01-01T00:00:02.000+0000",  # Jackson
        "2019-01-01T01:00:02+01:00[Europe/Berlin]",  # Java's ZonedDateTime
        "2019-01-01t00:00:02z",  # RFC 3339 in small letters
        "2019/01/01 00:00:02Z",
        "20190101000002",  # fixed-width extracts
        "20190101 000002",
        "2019-01-01T00:00:02.000000000Z",  # Go
        "  2019-01-01T00:00:02Z ",
    ],
)
def test_a_time_as_databases_and_languages_print_it(written: str, tmp_path: Path) -> None:
    assert one(written, "ts", tmp_path).times == [NEW_YEAR]


@pytest.mark.parametrize(
    ("event", "written", "meant"),
    [
        ({"epoch": "s"}, "1546300802", NEW_YEAR),
        ({"epoch": "s"}, "1546300802.0", NEW_YEAR),
        ({"epoch": "s"}, "1.546300802E+9", NEW_YEAR),
        ({"epoch": "ms"}, "1546300802000", NEW_YEAR),
        ({"epoch": "us"}, "1546300802000000", NEW_YEAR),
        ({"epoch": "ns"}, "1546300802000000000", NEW_YEAR),
        ({"epoch": "sheet"}, "43466.00002314815", NEW_YEAR),
        ({"epoch": "sheet", "timezone": "Europe/Berlin"}, "43466.04168981481", NEW_YEAR),
        ({"epoch": "sheet"}, "43466", "2019-01-01T00:00:00+00:00"),
        ({"format": "%d/%m/%Y %I:%M:%S %p", "timezone": "UTC"}, "01/01/2019 12:00:02 AM", NEW_YEAR),
        ({"format": "%y%m%d%H%M%S", "timezone": "UTC"}, "190101000002", NEW_YEAR),
        ({"format": "%a, %d %b %Y %H:%M:%S %z"}, "Tue, 01 Jan 2019 00:00:02 +0000", NEW_YEAR),
    ],
)
def test_a_time_as_the_mapping_says_it_is_written(
    event: dict[str, str], written: str, meant: str, tmp_path: Path
) -> None:
    assert one(written, "ts", tmp_path, event_time={"column": "ts"} | event).times == [meant]


@pytest.mark.parametrize(
    ("event", "written", "said"),
    [
        ({"epoch": "s"}, "1546300800000", "ms instead of s?"),
        ({"epoch": "s"}, "1546300800000000", "us instead of s?"),
        ({"epoch": "s"}, "1546300800000000000", "ns instead of s?"),
        ({"epoch": "ms"}, "1546300800", "s instead of ms?"),
        ({"epoch": "ns"}, "1546300800000", "ms instead of ns?"),
        ({"epoch": "s"}, "86399", "say origin"),
        ({}, "1546300800", "say epoch: s"),
        ({}, "1546300800000", "say epoch: ms"),
        ({}, "43466.5", "say epoch: sheet"),
        ({}, "17", "say epoch (s, min, h, d) and origin"),
        ({}, "01/02/2019", "order of their own: say format"),
        ({}, "2019-01-01 02:30 PM", "twelve hours: say format"),
        ({}, "2019-01-01 00:00:00 PST", "abbreviation"),
        ({}, "2019-02-30T00:00:00Z", "ISO 8601"),
        ({"epoch": "s"}, "99999999999999999999", "should be a number of s"),
        ({"epoch": "s"}, "inf", "should be a number of s"),
    ],
)
def test_a_time_that_cannot_be_read_says_what_it_looks_like(
    event: dict[str, str], written: str, said: str, tmp_path: Path
) -> None:
    found = one(written, "ts", tmp_path, event_time={"column": "ts"} | event)
    assert found.rows == [] and said in found.reasons[0]


@pytest.mark.parametrize(
    ("amount", "written", "minor"),
    [
        ({"thousands": ","}, "1,234.50", 123450),
        ({"thousands": ","}, "1,234,567.00", 123456700),
        ({"thousands": ","}, "1234.5", 123450),
        ({"thousands": "'"}, "1'234.50", 123450),
        ({"thousands": " ", "decimal": ","}, "1 234,50", 123450),
        ({"thousands": " ", "decimal": ","}, "1\u00a0234,50", 123450),
        ({"thousands": " ", "decimal": ","}, "1\u202f234,50", 123450),
        ({"symbol": "$"}, "$134.09", 13409),
        ({"symbol": "$", "thousands": ","}, "$1,134.09", 113409),
        ({"symbol": "EUR"}, "12.30 EUR", 1230),
        ({"symbol": "€", "decimal": ","}, "12,30 €", 1230),
        ({"negative": "absolute"}, "(25.00)", 2500),
        ({"negative": "absolute"}, "25.00-", 2500),
        ({"negative": "absolute"}, "\u221225.00", 2500),
        ({"negative": "absolute", "symbol": "$"}, "-$25.00", 2500),
        ({}, "1e+02", 10000),
        ({}, "1.5E-1", 15),
        ({}, "000000001234", 123400),
        ({"unit": "minor"}, "000000001234", 1234),
        ({"rounding": "half_up"}, "2.675", 268),
        ({"rounding": "half_even"}, "2.665", 266),
        ({"rounding": "down"}, "2.679", 267),
        ({"rounding": "half_up"}, "-0.004", 0),
        ({"rounding": "half_up", "decimal": ","}, "1.002,675", 100268),
    ],
)
def test_an_amount_as_the_mapping_says_it_is_written(
    amount: dict[str, str], written: str, minor: int, tmp_path: Path
) -> None:
    assert one(written, "amt", tmp_path, amount={"column": "amt"} | amount).minor == [minor]


@pytest.mark.parametrize(
    ("amount", "written", "said"),
    [
        ({}, "1,234.50", "say thousands: ','"),
        ({}, "12,34", "say decimal: ','"),
        ({}, "1 234.50", "say thousands"),
        ({}, "$12.30", "say symbol"),
        ({}, "12.30 EUR", "say symbol"),
        ({}, "-12.30", "a refund or reversal is no payment"),
        ({}, "2.675", "more decimals than the minor unit"),
        ({}, "twelve", "should be a decimal number"),
        ({}, "1e999", "should be a decimal number"),
        ({"thousands": ","}, "12,34", "should be a decimal number"),
        ({"thousands": ","}, "1,2345.00", "should be a decimal number"),
        ({"rounding": "half_up"}, "twelve", "should be a decimal number"),
    ],
)
def test_an_amount_that_cannot_be_read_says_what_the_mapping_could_say(
    amount: dict[str, str], written: str, said: str, tmp_path: Path
) -> None:
    found = one(written, "amt", tmp_path, amount={"column": "amt"} | amount)
    assert found.rows == [] and said in found.reasons[0]


def test_amounts_of_every_type_are_rounded_as_the_mapping_says(tmp_path: Path) -> None:
    for place, column in enumerate(
        (
            pa.array([2.675]),
            pa.array([2.675], pa.float32()),
            pa.array([Decimal("2.675")], pa.decimal128(9, 3)),
        )
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        table = {"id": ["a"], "ts": ["2019-01-01T00:00:00Z"], "cust": ["c"], "mer": ["m"], "amt": column}
        pq.write_table(pa.table(table), folder / "a.parquet")
        rounded = {"column": "amt", "rounding": "half_up"}
        assert import_file(folder / "a.parquet", folder, amount=rounded).minor == [268]
        assert import_file(folder / "a.parquet", folder).rows == []


def test_refunds_and_verifications_are_left_out_where_the_mapping_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "id,ts,cust,mer,amt\n" + "".join(
        f"a{place},2019-01-0{place + 1}T00:00:10Z,c1,m1,{amount}\n"
        for place, amount in enumerate(("25.00", "-25.00", "0.00"))
    )
    kept = import_text(text, tmp_path)
    assert (kept.ids, len(kept.refused)) == (["a0", "a2"], 1)
    assert "have the amount 0" in capsys.readouterr().out
    told = {"column": "amt", "negative": "leave_out", "zero": "leave_out"}
    out = import_text(text, tmp_path, "--most-rejected", "0", amount=told)
    assert (out.code, out.ids, out.refused) == (0, ["a0"], [])
    said = capsys.readouterr().out
    assert "left out 1: the amount is negative" in said and "left out 1: the amount is zero" in said


@pytest.mark.parametrize(
    ("written", "kept"),
    [("12345.0", "12345"), ("12345", "12345"), ("007", "007"), ("1.5", "1.5"), ("a.0", "a.0"), ("7.00", "7")],
)
def test_an_id_that_a_gap_made_a_float_is_itself_again(written: str, kept: str, tmp_path: Path) -> None:
    (row,) = one(written, "cust", tmp_path).rows
    assert (row["customer_id"], row["card_id"]) == (kept, f"k-{kept}")


@pytest.mark.parametrize("written", ["1.23457E+11", "9.1e+15", "4E+15"])
def test_an_id_whose_digits_a_float_lost_is_refused(written: str, tmp_path: Path) -> None:
    found = one(written, "cust", tmp_path)
    assert found.rows == [] and found.reasons == ["customer_id: " + found.refused[0]["reason"]]
    assert "lost its last digits" in found.refused[0]["reason"]


def test_whole_numbers_that_a_float_cannot_hold_are_refused_as_ids(tmp_path: Path) -> None:
    customers = pa.array([2.0**53, 12.0, None])
    table = {
        "id": ["a1", "a2", "a3"],
        "ts": ["2019-01-01T00:00:00Z"] * 3,
        "cust": customers,
        "mer": ["m"] * 3,
    }
    pq.write_table(pa.table(table | {"amt": ["1.00"] * 3}), tmp_path / "a.parquet")
    found = import_file(tmp_path / "a.parquet", tmp_path)
    assert [row["customer_id"] for row in found.rows] == ["12"]
    assert "lost its last digits" in found.reasons[0] and "missing" in found.reasons[1]


@pytest.mark.parametrize(
    ("written", "verdict"),
    [("1", True), ("1.0", True), ("TRUE", True), ("t", True), ("Yes", True), ("Y", True), ("Fraud", True),
     ("chargeback", True), ("confirmed_fraud", True), ("0", False), ("0.00", False), ("false", False), ("no", False),
     ("Not Fraud", False), ("non-fraud", False), ("genuine", False), ("legitimate", False), ("OK", False),
     ("", None), ("NULL", None), ("nan", None)],
)  # fmt: skip
def test_a_label_in_every_usual_spelling(written: str, verdict: bool | None, tmp_path: Path) -> None:
    text = f"id,ts,cust,mer,amt,f\na1,2019-01-01T00:00:10Z,c1,m1,1.00,{written}\n"
    label = {"label": {"column": "f", "delay": "7d", "keep_genuine": True}}
    assert import_text(text, tmp_path, others=label).ids == ["a1"]
    found = [row["is_fraud"] for row in read_dataset_labels(tmp_path / "out").to_pylist()]
    assert found == ([] if verdict is None else [verdict])


def test_a_label_in_another_spelling_names_the_words(tmp_path: Path) -> None:
    text = "id,ts,cust,mer,amt,f\na1,2019-01-01T00:00:10Z,c1,m1,1.00,maybe\n"
    found = import_text(text, tmp_path, others={"label": {"column": "f", "delay": "7d"}})
    assert found.rows == [] and "fraud (1, true, t, ...) or genuine (0, false, f, ...)" in found.reasons[0]


def test_labels_of_parquet_types_are_read(tmp_path: Path) -> None:
    for place, column in enumerate(
        (pa.array([True, False, None]), pa.array([1.0, 0.0, None]), pa.array([1, 0, None]))
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        table = {
            "id": ["a", "b", "c"],
            "ts": ["2019-01-01T00:00:00Z"] * 3,
            "cust": ["c"] * 3,
            "mer": ["m"] * 3,
        }
        pq.write_table(pa.table(table | {"amt": ["1"] * 3, "f": column}), folder / "a.parquet")
        label = {"label": {"column": "f", "delay": "1d", "keep_genuine": True}}
        assert len(import_file(folder / "a.parquet", folder, others=label).rows) == 3
        verdicts = read_dataset_labels(folder / "out").to_pylist()
        assert {row["transaction_id"]: row["is_fraud"] for row in verdicts} == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("written", "code"),
    [("978", "EUR"), ("036", "AUD"), ("36", "AUD"), ("840.0", "USD"), ("0826", "GBP"), ("EUR", "EUR")],
)
def test_a_currency_by_its_letters_or_its_number(written: str, code: str, tmp_path: Path) -> None:
    text = f"id,ts,cust,mer,amt,cur\na1,2019-01-01T00:00:10Z,c1,m1,1.00,{written}\n"
    assert [row["currency"] for row in import_text(text, tmp_path, currency="cur").rows] == [code]


def test_rows_that_the_mapping_does_not_ask_for_are_left_out(tmp_path: Path) -> None:
    text = "id,ts,cust,mer,amt,kind\n" + "".join(
        f"a{place},2019-01-01T00:00:1{place}Z,c1,m1,{amount},{kind}\n"
        for place, (kind, amount) in enumerate((("sale", "1.00"), ("refund", "-1.00"), ("settled", "bad")))
    )
    found = import_text(text, tmp_path, "--most-rejected", "0", others={"only": {"kind": ["sale"]}})
    assert (found.code, found.ids, found.refused) == (0, ["a0"], [])
