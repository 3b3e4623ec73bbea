"""A suggested mapping fits the file that it was made from, and says what looks odd in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datasets.folder import read_dataset_transactions
from datasets.importer import main
from datasets.mapping import load_mapping
from stores.settings import settings
from tests.datasets.imports import CARD_NUMBER


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield
    settings.cache_clear()


def suggested(text: str, folder: Path, name: str = "pay.csv", encoding: str = "utf8") -> str:
    """The mapping that is suggested for a file of `text`."""
    (folder / name).write_bytes(text.encode(encoding))
    assert main(["--suggest", str(folder / name), "--out", str(folder / "m.yaml")]) == 0
    return (folder / "m.yaml").read_text()


def imported(folder: Path, name: str = "pay.csv") -> list[dict[str, Any]]:
    arguments = [
        "--data",
        str(folder / name),
        "--mapping",
        str(folder / "m.yaml"),
        "--out",
        str(folder / "out"),
    ]
    assert main(arguments) == 0
    return read_dataset_transactions(folder / "out").to_pylist()


FILES = {
    "german spreadsheet": (
        "id;date;customer;card number;merchant;amount;currency;type;is_fraud\n"
        f"a1;31.01.2020 10:00;c1;{CARD_NUMBER};m1;1.012,34;EUR;Online;0\n"
        f"a2;01.02.2020 11:00;c1;{CARD_NUMBER};m1;12,34;978;POS chip;1\n",
        {"a1": ("2020-01-31T10:00:00+00:00", 101234, "ecom"), "a2": ("2020-02-01T11:00:00+00:00", 1234, "pos")},
    ),
    "numbers": (
        "txn_id,unix_time,user_id,merchant_id,amt\n1,1546300802,7,m,12.34\n2,1546300803,7,m,1\n",
        {"1": ("2019-01-01T00:00:02+00:00", 1234, "ecom"), "2": ("2019-01-01T00:00:03+00:00", 100, "ecom")},
    ),
    "american": (
        'Transaction ID\tDate\tUser\tMerchant\tAmount\nx1\t01/31/2019 01:02:03 PM\tu\tm\t"$1,012.34"\n',
        {"x1": ("2019-01-31T13:02:03+00:00", 101234, "ecom")},
    ),
    "no ids": (
        "timestamp,amount\n2019-01-01 00:00:02 UTC,1.5\n2019-01-01 00:00:03 UTC,2\n",
        {"pay-1": ("2019-01-01T00:00:02+00:00", 150, "ecom"), "pay-2": ("2019-01-01T00:00:03+00:00", 200, "ecom")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(FILES))
def test_a_suggested_mapping_imports_its_file(kind: str, tmp_path: Path) -> None:
    text, expected = FILES[kind]
    said = suggested(text, tmp_path)
    assert "EDIT" in said and "would be refused" not in said
    load_mapping(tmp_path / "m.yaml")
    found = {
        row["transaction_id"]: (row["event_timestamp"].isoformat(), row["amount_minor"], row["channel"])
        for row in imported(tmp_path)
    }
    assert found == expected


@pytest.mark.parametrize("encoding", ["utf8", "utf-8-sig", "utf-16", "cp1252"])
def test_an_encoding_is_found(encoding: str, tmp_path: Path) -> None:
    suggested(
        "id,time,customer,merchant,amount\n1,2019-01-01T00:00:02Z,Zo\u00eb,m,1.00\n",
        tmp_path,
        encoding=encoding,
    )
    assert imported(tmp_path)[0]["customer_id"] == "Zo\u00eb"


def test_nested_documents_are_found(tmp_path: Path) -> None:
    line = '{"data": {"id": "a1", "created": 1546300802, "amount": "12.30", "customer": "c"}}\n'
    suggested(line * 2, tmp_path, "pay.jsonl")
    assert load_mapping(tmp_path / "m.yaml").fields["transaction_id"].column == "data.id"


def test_what_looks_odd_is_said(tmp_path: Path) -> None:
    rows = "".join(
        f"a,2019-01-01T00:00:02Z,everybody,m,{amount},0,0.0\n" for amount in ["1.00", "-5.00", "0.00"] * 20
    )
    said = suggested("id,time,customer,merchant,amount,lat,lon\n" + rows, tmp_path)
    for warning in (
        "100% of rows share their time", "one customer_id stands in 100%", "exactly 0, 0", "20 amounts are negative",
        "20 amounts are 0", "transaction ids repeat",
    ):  # fmt: skip
        assert warning in said, warning


def test_nothing_personal_is_repeated_and_no_key_is_made(tmp_path: Path) -> None:
    said = suggested(
        f"id,time,customer,pan,merchant,amount\n1,2019-01-01T00:00:02Z,Ann,{CARD_NUMBER},m,1\n", tmp_path
    )
    assert "tokenize: true" in said and CARD_NUMBER not in said and "Ann" not in said
    assert not (tmp_path / "home").exists()


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert main(["--suggest", str(tmp_path / "a.zip")]) == 1
    assert "unzip it first" in capsys.readouterr().err
    (tmp_path / "a.csv").write_text("id,time,customer,merchant,amount\n")
    assert main(["--suggest", str(tmp_path / "a.csv")]) == 1
    assert "has no rows" in capsys.readouterr().err
    assert main(["--suggest", str(tmp_path / "none.csv")]) == 2


def test_a_file_of_other_peoples_words_still_gets_a_mapping_to_edit(tmp_path: Path) -> None:
    said = suggested("a,b,c\n1,2,3\n", tmp_path)
    assert "no column looks like a time" in said and "there is no column EDIT" in said
