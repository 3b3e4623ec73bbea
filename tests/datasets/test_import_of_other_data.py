"""What other people's data look like: words for nothing, printed times, tokens, units, signs, folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.fields import MappingError
from datasets.folder import read_dataset_labels, read_dataset_transactions
from datasets.importer import main
from datasets.mapping import load_mapping
from datasets.remarks import remarks
from datasets.tokens import read_key
from stores.settings import settings
from tollgate_client.tokens import token

CARD_NUMBER = "4" + "1" * 15
BASE: dict[str, Any] = {
    "transaction_id": "id", "event_time": {"column": "ts", "timezone": "UTC"}, "customer_id": "cust",
    "card_id": {"template": "k-{cust}"}, "merchant_id": "mer", "amount": "amt",
    "currency": {"constant": "EUR"}, "channel": {"constant": "ecom"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield
    settings.cache_clear()


def imported(
    folder: Path, csv: str, *arguments: str, source: Any = None, label: Any = None, **fields: Any
) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
    """Exit code, rows and rejects of an import of `csv`, through the command."""
    mapping = {"name": "t", "fields": BASE | fields}
    mapping |= {} if source is None else {"source": source}
    mapping |= {} if label is None else {"label": label}
    (folder / "m.yaml").write_text(json.dumps(mapping))
    (folder / "data.csv").write_text(csv)
    out = folder / "out"
    named = ["--data", str(folder / "data.csv"), "--mapping", str(folder / "m.yaml"), "--out", str(out)]
    code = main([*named, *(arguments or ("--most-rejected", "1"))])
    if not out.exists():
        return code, [], []
    return (
        code,
        read_dataset_transactions(out).to_pylist(),
        pq.read_table(out / "rejects.parquet").to_pylist(),
    )


def rows(*lines: str, header: str = "id,ts,cust,mer,amt") -> str:
    return "\n".join((header, *lines)) + "\n"


def test_a_column_of_card_numbers_becomes_keyed_tokens(tmp_path: Path) -> None:
    csv = rows(
        f"a1,2019-01-01T00:00:10Z,{CARD_NUMBER},m1,1.00", f"a2,2019-01-01T00:00:11Z,{CARD_NUMBER},m1,bad"
    )
    tokenized = {"column": "cust", "tokenize": True}
    _, found, refused = imported(tmp_path, csv, customer_id=tokenized, card_id=tokenized)
    assert found[0]["card_id"] == found[0]["customer_id"] == token(CARD_NUMBER, read_key())
    assert json.loads(refused[0]["row"])["cust"] == "[made a token]"
    for path in tmp_path.joinpath("out").rglob("*.parquet"):
        assert CARD_NUMBER not in json.dumps(pq.read_table(path).to_pylist(), default=str)
    assert (tmp_path / "home" / "token.key").stat().st_mode & 0o077 == 0
    assert token(CARD_NUMBER, bytes(32)) != token(CARD_NUMBER, read_key())
    assert token("4111 1111-1111 1111", read_key()) == token(CARD_NUMBER, read_key())


def test_too_many_rejects_fail_the_import_and_say_what_the_mapping_could_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = rows(*[f"a{n},2019-01-01T00:00:10Z,{CARD_NUMBER},m1,1.00" for n in range(9)],
               "b,2019-01-01T00:00:10Z,c,m1,1.00")  # fmt: skip
    code, found, _ = imported(tmp_path, csv, "--most-rejected", "0.05", card_id="cust")
    said = capsys.readouterr().err
    assert (code, found) == (1, [])
    assert "9 of 10 rows were refused" in said and "tokenize: true" in said
    assert CARD_NUMBER not in said
    assert imported(tmp_path, csv, "--most-rejected", "0.9", card_id="cust")[0] == 0


@pytest.mark.parametrize("word", ["NULL", "nan", "\\N", "None", "N/A", "  ", "<NA>", "#N/A"])
def test_words_for_nothing_are_nothing(word: str, tmp_path: Path) -> None:
    csv = rows(f"a1,2019-01-01T00:00:10Z,c1,m1,1.00,{word}", header="id,ts,cust,mer,amt,dev")
    _, found, _ = imported(tmp_path, csv, device_id="dev")
    assert found[0]["device_id"] is None


def test_na_is_a_country_unless_the_mapping_says_otherwise(tmp_path: Path) -> None:
    csv = rows("a1,2019-01-01T00:00:10Z,c1,m1,1.00,NA", header="id,ts,cust,mer,amt,c")
    assert imported(tmp_path, csv, country="c")[1][0]["country"] == "NA"
    assert imported(tmp_path, csv, country="c", source={"nothing": ["na"]})[1][0]["country"] is None


@pytest.mark.parametrize(
    "written",
    ["2019-01-01 00:00:02 UTC", "2019-01-01 01:00:02+01", "2019-01-01T00:00:02Z[UTC]", '"2019-01-01T00:00:02,0Z"',
     "2019-01-01 00:00:02.0000009 UTC", "20190101T000002Z", "2018-12-31 19:00:02-0500", "2019-01-01T00:00:02 GMT"],
)  # fmt: skip
def test_times_as_databases_print_them(written: str, tmp_path: Path) -> None:
    _, found, _ = imported(tmp_path, rows(f"a1,{written},c1,m1,1.00"), event_time={"column": "ts"})
    assert found[0]["event_timestamp"].isoformat() == "2019-01-01T00:00:02+00:00"


@pytest.mark.parametrize(
    ("epoch", "written", "meant"),
    [
        ("s", "1e+05", "2017-01-02T03:46:40+00:00"),
        ("h", "25", "2017-01-02T01:00:00+00:00"),
        ("d", "0.5", "2017-01-01T12:00:00+00:00"),
        ("min", "90", "2017-01-01T01:30:00+00:00"),
    ],
)
def test_relative_times_count_from_an_origin(epoch: str, written: str, meant: str, tmp_path: Path) -> None:
    event = {"column": "ts", "epoch": epoch, "origin": "2017-01-01T00:00:00Z"}
    _, found, _ = imported(tmp_path, rows(f"a1,{written},c1,m1,1.00"), event_time=event)
    assert found[0]["event_timestamp"].isoformat() == meant


def test_a_row_in_another_unit_is_refused_and_the_unit_guessed(tmp_path: Path) -> None:
    csv = rows("a1,1546300800,c1,m1,1.00", "a2,1546300800000,c1,m1,1.00", "a3,4102444800,c1,m1,1.00")
    _, found, refused = imported(tmp_path, csv, event_time={"column": "ts", "epoch": "s"})
    assert [row["transaction_id"] for row in found] == ["a1"]
    assert "ms instead of s?" in refused[0]["reason"]


def test_what_lies_in_the_future_is_refused(tmp_path: Path) -> None:
    _, found, refused = imported(tmp_path, rows("a1,2090-01-01T00:00:00Z,c1,m1,1.00"))
    assert (found, refused[0]["reason"]) == ([], "lies in the future")


@pytest.mark.parametrize(
    ("written", "minor"),
    [("12,34", 1234), ("1.234,50", 123450), ("1234", 123400), ("-0,5", None), ("12.34", None), ("1.23,4", None),
     ("1.234.567,00", 123456700), ("12,3", 1230), ("1,234,5", None)],
)  # fmt: skip
def test_a_decimal_comma_never_turns_a_point_into_thousands(
    written: str, minor: int | None, tmp_path: Path
) -> None:
    csv = rows(f"a1;2019-01-01T00:00:10Z;c1;m1;{written}", header="id;ts;cust;mer;amt")
    _, found, refused = imported(
        tmp_path, csv, source={"delimiter": ";"}, amount={"column": "amt", "decimal": ","}
    )
    assert [row["amount_minor"] for row in found] == ([] if minor is None else [minor])
    assert len(refused) == (minor is None)


def test_a_providers_minor_units_become_those_of_the_standard(tmp_path: Path) -> None:
    csv = rows("a1,2019-01-01T00:00:10Z,c1,m1,1000,ISK", "a2,2019-01-01T00:00:11Z,c1,m1,1000,IDR",
               "a3,2019-01-01T00:00:12Z,c1,m1,1050,ISK", "a4,2019-01-01T00:00:13Z,c1,m1,1000,EUR",
               header="id,ts,cust,mer,amt,cur")  # fmt: skip
    amount = {"column": "amt", "unit": "minor", "minor_digits": {"ISK": 2, "IDR": 0}}
    _, found, refused = imported(tmp_path, csv, amount=amount, currency="cur")
    assert [row["amount_minor"] for row in found] == [10, 100_000, 1000]
    assert refused[0]["field"] == "amount"


def test_a_sign_means_what_the_mapping_says(tmp_path: Path) -> None:
    csv = rows("a1,2019-01-01T00:00:10Z,c1,m1,-25.00")
    assert imported(tmp_path, csv)[1] == []
    _, found, _ = imported(tmp_path, csv, amount={"column": "amt", "negative": "absolute"})
    assert found[0]["amount_minor"] == 2500


def test_labels_of_every_usual_spelling(tmp_path: Path) -> None:
    words = {"1.0": True, "0.0": False, "": None, "Yes": True, "N": False, " TRUE ": True, "legit": False}
    csv = rows(*[f"a{n},2019-01-01T00:00:1{n}Z,c1,m1,1.00,{word}" for n, word in enumerate(words)],
               header="id,ts,cust,mer,amt,f")  # fmt: skip
    code, found, refused = imported(tmp_path, csv, label={"column": "f", "delay": "7d", "keep_genuine": True})
    assert (code, len(found), refused) == (0, 7, [])
    labels = {
        row["transaction_id"]: row["is_fraud"] for row in read_dataset_labels(tmp_path / "out").to_pylist()
    }
    assert labels == {f"a{n}": said for n, said in enumerate(words.values()) if said is not None}


def test_rows_are_numbered_where_there_is_no_id(tmp_path: Path) -> None:
    csv = rows("x,2019-01-01T00:00:10Z,c1,m1,1.00", "x,2019-01-01T00:00:11Z,c1,m1,1.00")
    _, found, _ = imported(tmp_path, csv, transaction_id={"row": True})
    assert [row["transaction_id"] for row in found] == ["t-1", "t-2"]


def test_codes_and_countries_are_text_in_a_mapping_file(tmp_path: Path) -> None:
    text = json.dumps({"name": "t", "fields": BASE})[:-2] + ', "country": {column: c, values: {Norway: NO}}}}'
    path = tmp_path / "m.yaml"
    path.write_text(text.replace('{"constant": "EUR"}', "{column: cur, values: {036: AUD, 048: BHD}}"))
    fields = load_mapping(path).fields
    assert fields["currency"].values == {"036": "AUD", "048": "BHD"}
    assert fields["country"].values == {"Norway": "NO"}


@pytest.mark.parametrize(
    ("event", "message"),
    [({"column": "ts", "format": "%Y %Z"}, "%Z reads"), ({"column": "ts", "epoch": "h"}, "counts from an origin")],
)  # fmt: skip
def test_a_mapping_that_would_shift_times_is_refused(
    event: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(json.dumps({"name": "t", "fields": BASE | {"event_time": event}}))
    with pytest.raises(MappingError, match=message):
        load_mapping(path)


def test_folders_that_spark_wrote_are_read_with_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "in" / "day=2019-01-01" / "part-0.snappy.parquet"
    file.parent.mkdir(parents=True)
    columns = {"id": ["a1"], "cust": ["c1"], "mer": ["m1"], "amt": pa.array([149.62], pa.float32())}
    pq.write_table(pa.table(columns), file)
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        json.dumps({"name": "t", "fields": BASE | {"event_time": {"column": "day", "timezone": "UTC"}}})
    )
    assert (
        main(["--data", str(tmp_path / "in"), "--mapping", str(mapping), "--out", str(tmp_path / "out")]) == 0
    )
    (row,) = read_dataset_transactions(tmp_path / "out").to_pylist()
    assert (row["amount_minor"], row["event_timestamp"].isoformat()) == (14962, "2019-01-01T00:00:00+00:00")


def test_an_address_and_a_place_have_the_contracts_form(tmp_path: Path) -> None:
    csv = rows("a1,2019-01-01T00:00:10Z,c1,m1,1.00,::ffff:203.0.113.7,0,0.0",
               "a2,2019-01-01T00:00:11Z,c1,m1,1.00,999.1.1.1,1,1",
               header="id,ts,cust,mer,amt,ip,lat,lon")  # fmt: skip
    _, found, refused = imported(tmp_path, csv, ip="ip", latitude="lat", longitude="lon")
    assert (found[0]["ip"], found[0]["latitude"], found[0]["longitude"]) == ("203.0.113.7", None, None)
    assert refused[0]["field"] == "ip"


def test_shared_times_and_one_id_for_everybody_are_said(tmp_path: Path) -> None:
    csv = rows(*[f"a{n},2019-01-01T00:00:10Z,everybody,m1,1.00" for n in range(200)])
    assert imported(tmp_path, csv)[0] == 0
    said = " ".join(remarks(tmp_path / "out"))
    assert "100% of rows share their time" in said and "one customer_id stands in 100%" in said
