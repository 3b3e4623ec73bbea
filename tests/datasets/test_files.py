"""Files as they come: encodings, headers, folders, kinds; a second file; what is no file at all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.importer import main
from tests.datasets.imports import CARD_NUMBER, import_file, import_text

ROWS = "id,ts,cust,mer,amt\na1,2019-01-01T00:00:10Z,Zo\u00eb,Caf\u00e9,1.00\n"


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf8", None), ("utf-8-sig", None), ("utf-16", None), ("cp1252", "cp1252"), ("latin-1", "latin-1"),
     ("utf-16-le", "utf-16-le"), ("mac-roman", "mac-roman")],
)  # fmt: skip
def test_text_in_any_encoding(encoding: str, said: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(ROWS.encode(encoding))
    others = {"source": {"encoding": said}} if said else None
    (row,) = import_file(tmp_path / "a.csv", tmp_path, others=others).rows
    assert (row["customer_id"], row["merchant_id"]) == ("Zo\u00eb", "Caf\u00e9")


def sentence(found: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command said, which should be one sentence and no stack."""
    said = capsys.readouterr().err
    assert found.code == 2 and found.rows == [] and "Traceback" not in said
    return said


def test_text_in_another_encoding_than_said_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_bytes(ROWS.encode("cp1252"))
    found = import_file(tmp_path / "a.csv", tmp_path)
    assert "it is not text in utf8: say source: encoding" in sentence(found, capsys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": {"encoding": "utf-9"}}, "'utf-9' is no encoding"),
        ({"source": {"delimitter": ";"}}, "did you mean delimiter?"),
        ({"fields": {"custmer_id": "cust"}}, "did you mean customer_id?"),
        ({"feilds": {}}, "did you mean fields?"),
        ({"label": {"column": "f", "delay": "soon"}}, "a number and a unit"),
        ({"only": {"kind": ["a"]}}, "lacks the columns kind"),
    ],
)
def test_a_typo_in_a_mapping_is_a_sentence(
    change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = change.pop("fields", {})
    assert said in sentence(import_text(ROWS, tmp_path, others=change, **fields), capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("id;ts;cust;mer;amt\na;b;c;d;e\n", "one column, 'id;ts;cust;mer;amt': say source: delimiter"),
        ("ID,TS,Cust,mer,amt\n1,2,3,4,5\n", "cust: did you mean 'Cust'?"),
        ("id,ts,cust,mer,amt,amt\n1,2,3,4,5,6\n", "has 2 columns called 'amt'"),
        ("id,ts,customer,mer,amt\n1,2,3,4,5\n", "lacks the columns cust"),
    ],
)
def test_a_header_that_does_not_fit_is_a_sentence(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in sentence(import_text(text, tmp_path), capsys)


def test_headers_with_blanks_and_columns_of_one_name_are_read(tmp_path: Path) -> None:
    text = "id, ts ,cust,mer,amt,Account,Account\na1,2019-01-01T00:00:10Z,c,m,1.00,from,to\n"
    others = {"source": {"duplicates": "number"}}
    (row,) = import_text(text, tmp_path, others=others, customer_id="Account", merchant_id="Account.1").rows
    assert (row["customer_id"], row["merchant_id"]) == ("from", "to")


def test_quotes_of_another_kind_are_taken_off(tmp_path: Path) -> None:
    text = "id,ts,cust,mer,amt\n'a1','2019-01-01T00:00:10Z','c,1','m',1.00\n"
    (row,) = import_text(text, tmp_path, others={"source": {"quote": "'"}}).rows
    assert row["customer_id"] == "c,1"


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.zip", "unzip it first"), ("a.xlsx", "save it as CSV"), ("a.pkl", "runs code when it is read"),
     ("a.avro", "write parquet"), ("a.doc", "should end in"), ("a.parquet", "cannot be read"),
     ("a.csv.gz", "cannot be read"), ("a.json", "is no JSON document"), ("a.xml", "is no XML")],
)  # fmt: skip
def test_a_file_of_another_kind_says_how_to_make_one(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 nothing that can be read")
    assert said in sentence(import_file(tmp_path / name, tmp_path), capsys)


def test_a_folder_without_any_readable_file_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.zip").write_bytes(b"PK")
    assert "unzip it first" in sentence(import_file(tmp_path / "in", tmp_path), capsys)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_keys_of_partition_folders_are_columns(kind: str, tmp_path: Path) -> None:
    row = {"id": "a1", "ts": "2019-01-01T00:00:10Z", "mer": "m", "amt": "1.00"}
    for customer in ("c%3A1", "__HIVE_DEFAULT_PARTITION__"):
        file = tmp_path / "shop=7" / "in" / f"cust={customer}" / f"part-0.{kind}"
        file.parent.mkdir(parents=True)
        if kind == "parquet":
            pq.write_table(pa.table({name: [value] for name, value in row.items()}), file)
        elif kind == "csv":
            file.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
        else:
            file.write_text(json.dumps(row) + "\n")
    found = import_file(tmp_path / "shop=7" / "in", tmp_path, card_id={"constant": "k"})
    assert [each["customer_id"] for each in found.rows] == ["c:1"]
    assert "missing" in found.reasons[0]  # whose key is null


NESTED = {"type": "charge", "data": {"object": {"id": "a1", "amount": 1230, "card": {"mark": "fp"}, "tags": ["x", "y"]}},
          "created": 1546300802, "live": True}  # fmt: skip
PATHS: dict[str, Any] = {
    "transaction_id": "data.object.id", "event_time": {"column": "created", "epoch": "s"},
    "customer_id": "data.object.card.mark", "card_id": "data.object.card.mark", "merchant_id": "data.object.tags.1",
    "amount": {"column": "data.object.amount", "unit": "minor"},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "list.json"])
def test_nested_json_is_read_by_paths(kind: str, tmp_path: Path) -> None:
    text = json.dumps([NESTED] if kind == "list.json" else NESTED) + "\n"
    path = tmp_path / f"a.{kind}"
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    (row,) = import_file(path, tmp_path, others={"only": {"live": ["true"]}}, **PATHS).rows
    assert (row["transaction_id"], row["amount_minor"], row["merchant_id"]) == ("a1", 1230, "y")


def test_numbers_of_json_stay_as_they_are_written(tmp_path: Path) -> None:
    text = '{"id": 12345678901234567890, "ts": "2019-01-01T00:00:02Z", "cust": 7, "mer": "m", "amt": 1234567890.10}\n'
    (tmp_path / "a.jsonl").write_text(text)
    (row,) = import_file(tmp_path / "a.jsonl", tmp_path).rows
    assert (row["transaction_id"], row["amount_minor"]) == ("12345678901234567890", 123456789010)


def test_broken_lines_of_json_go_aside(tmp_path: Path) -> None:
    good = {"id": "a1", "ts": "2019-01-01T00:00:02Z", "cust": "c", "mer": "m", "amt": "1.00"}
    deep = '{"a":' * 30 + "1" + "}" * 30
    lines = [json.dumps(good), "{broken", "[1, 2]", deep, "", json.dumps(good | {"id": "a2"})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    found = import_file(tmp_path / "a.jsonl", tmp_path)
    assert found.ids == ["a1", "a2"]
    assert [row["row_number"] for row in found.refused] == [2, 3, 4]


XML = """<?xml version="1.0"?><All xmlns="urn:x"><Msg><Id Kind="k">a1</Id><At>2019-01-01T00:00:02Z</At>
<Amt Ccy="EUR">12.30</Amt><Pty>c1</Pty><Pty>m1</Pty></Msg></All>"""
ELEMENTS: dict[str, Any] = {
    "transaction_id": "Id", "event_time": "At", "customer_id": "Pty", "card_id": "Pty", "merchant_id": "Pty.1",
    "amount": "Amt", "currency": "Amt@Ccy",
}  # fmt: skip


def test_xml_is_read_by_paths(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(XML)
    (row,) = import_file(tmp_path / "a.xml", tmp_path, others={"source": {"records": "Msg"}}, **ELEMENTS).rows
    assert (row["customer_id"], row["merchant_id"], row["currency"]) == ("c1", "m1", "EUR")


def test_xml_with_entities_is_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    (tmp_path / "a.xml").write_text(bomb)
    found = import_file(tmp_path / "a.xml", tmp_path, others={"source": {"records": "a"}}, **ELEMENTS)
    assert "is no XML that can be read" in sentence(found, capsys)


JOIN = {"source": {"join": {"file": "devices.csv", "key": "id", "key_there": "payment"}}}


def test_a_second_file_lends_its_columns_by_a_key(tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text("payment,dev,amt\na2,d2,9\na1.0,d1,9\n")
    text = ROWS + "a2,2019-01-01T00:00:11Z,c,m,1.00\na3,2019-01-01T00:00:12Z,c,m,1.00\n"
    found = import_text(text, tmp_path, others=JOIN, device_id="dev")
    assert [row["device_id"] for row in found.rows] == [None, "d2", None]
    assert found.minor == [100, 100, 100]  # a column that both have is the data's


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (None, "should lie beside the data"),
        ("payment,dev\na1,d1\na1,d2\n", "repeats 1 of its keys in payment"),
        ("key,dev\na1,d1\n", "lacks the columns payment"),
        ("payment,dev\n", "has no rows"),
    ],
)
def test_a_second_file_that_cannot_be_joined_is_a_sentence(
    devices: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if devices is not None:
        (tmp_path / "devices.csv").write_text(devices)
    assert said in sentence(import_text(ROWS, tmp_path, others=JOIN, device_id="dev"), capsys)


def test_what_is_kept_of_a_refused_row_names_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "id,ts,cust,mer,amt,dev,ip,lat,lon,email\n"
        f"a1,2019-01-01T00:00:10Z,Ann Smith,m1,12.3x,{CARD_NUMBER},203.0.113.7,52.5,13.4,ann@example.com\n"
    )
    place = {"device_id": "dev", "ip": "ip", "latitude": "lat", "longitude": "lon"}
    found = import_text(text, tmp_path, **place)
    kept = json.loads(found.refused[0]["row"])
    assert kept["id"] == "a1" and kept["amt"] == "12.3x" and kept["cust"] == "aaa aaaaa"
    assert kept["email"] == "aaa@aaaaaaa.aaa" and kept["dev"] == "[card number]"
    said = capsys.readouterr()
    assert "rejected 1: amount: should be a decimal number" in said.out and "written like 99.9a" in said.out
    info = (tmp_path / "out" / "dataset.json").read_text()
    for private in ("Ann", "203.0.113.7", "52.5", "ann@example.com", CARD_NUMBER):
        assert private not in said.out + said.err + info + found.refused[0]["row"]


def test_a_row_of_another_year_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    days = "".join(f"a{day},2018-01-{day:02d}T00:00:10Z,c1,m1,1.00\n" for day in range(1, 29))
    found = import_text("id,ts,cust,mer,amt\n" + days + "odd,2025-06-01T00:00:00Z,c1,m1,1.00\n", tmp_path)
    assert len(found.rows) == 29
    said = capsys.readouterr().out
    assert "1 of 29 rows lie far from the rest, which spans 2018-01-01 to 2018-01-28" in said
    assert "odd of 2025-06-01" in said


def test_two_seasons_are_one_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    days = "".join(
        f"{year}-{day},{year}-01-{day:02d}T00:00:10Z,c1,m1,1.00\n"
        for year in (2018, 2019)
        for day in range(1, 29)
    )
    assert len(import_text("id,ts,cust,mer,amt\n" + days, tmp_path).rows) == 56
    assert "lie far" not in capsys.readouterr().out


def test_a_share_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = import_text(ROWS, tmp_path, "--most-rejected", "5")
    assert "should be a share between 0 and 1" in sentence(found, capsys)
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path / "data.csv")])
    assert "--suggest FILE" in capsys.readouterr().err
