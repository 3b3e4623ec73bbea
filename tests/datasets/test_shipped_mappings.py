"""Every mapping that is shipped reads a small invented file of the columns that it is made for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from datasets.folder import read_dataset_transactions, read_info
from datasets.importer import main
from datasets.shipped import MAPPINGS, SAMPLES
from datasets.tokens import read_key
from embedded.demo_plan import DemoError, Options, check_trainable, plan
from stores.settings import REPOSITORY, settings
from tollgate_client.tokens import token

VISA = "4" + "1" * 15


class Shipped(NamedTuple):
    """A mapping's sample: rows taken and left out, known frauds, some fields of its first rows."""

    sample: str
    rows: int
    left_out: int
    frauds: int
    first: list[dict[str, Any]]


EXPECTED = {
    "handbook": Shipped("handbook.csv", 4, 0, 1, [
        {"transaction_id": "hb-0", "amount_minor": 5716, "currency": "USD", "customer_id": "cust-596", "at": "2018-04-01T00:00:31"}]),
    "sparkov": Shipped("sparkov.csv", 5, 0, 1, [
        {"amount_minor": 497, "channel": "ecom", "merchant_id": "fraud_Example, Kub and Sons", "at": "2019-01-01T00:00:18"},
        {"amount_minor": 10723, "channel": "pos", "merchant_category": "grocery_pos", "latitude": 36.01}]),
    "ulb": Shipped("ulb.csv", 4, 1, 1, [
        {"transaction_id": "ulb-1", "amount_minor": 14962, "currency": "EUR", "at": "2013-09-01T00:00:00"},
        {"transaction_id": "ulb-2", "at": "2013-09-01T00:00:01"},
        {"transaction_id": "ulb-4", "at": "2013-09-02T03:46:42"}]),
    "ieee-cis": Shipped("train_transaction.csv", 4, 0, 1, [
        {"transaction_id": "ieee-2987000", "device_id": None, "amount_minor": 6850, "at": "2017-12-01T00:00:00"},
        {"device_id": "SM-G892A Build/NRD90M", "card_id": "card-2755"},
        {"amount_minor": 22698, "merchant_id": "product-C"}]),  # 226.975
    "paysim": Shipped("paysim.csv", 5, 0, 1, [
        {"amount_minor": 983964, "channel": "ecom", "customer_id": "C1231006815", "at": "2017-01-01T01:00:00"}]),
    "banksim": Shipped("banksim.csv", 3, 1, 1, [
        {"customer_id": "C1093826151", "amount_minor": 455, "merchant_category": "es_transportation"}]),
    "ibm-aml": Shipped("ibm-aml.csv", 3, 1, 1, [
        {"currency": "JPY", "amount_minor": 1403, "channel": "pos", "customer_id": "00220-8000F5030",
         "merchant_id": "000220-8000F5031", "at": "2022-09-01T00:02:00"},
        {"currency": "EUR", "amount_minor": 1, "channel": "transfer"}]),
    "iso8583": Shipped("iso8583.csv", 3, 1, 0, [
        {"currency": "EUR", "amount_minor": 1230, "channel": "pos", "merchant_category": "5411", "at": "2019-01-01T00:00:10"},
        {"currency": "JPY", "amount_minor": 150000, "channel": "ecom"},
        {"currency": "USD", "amount_minor": 9900, "channel": "moto"}]),
    "iso20022": Shipped("iso20022.xml", 2, 0, 0, [
        {"transaction_id": "POI-7-000101", "currency": "EUR", "amount_minor": 1230, "channel": "pos", "at": "2019-01-01T00:00:10"},
        {"currency": "JPY", "amount_minor": 1500, "channel": "ecom", "merchant_category": "5732"}]),
    "stripe": Shipped("stripe.jsonl", 3, 1, 0, [
        {"transaction_id": "ch_1", "currency": "USD", "amount_minor": 2000, "merchant_id": "own", "country": "DE"},
        {"currency": "JPY", "amount_minor": 1500, "merchant_id": "acct_example"},
        {"currency": "ISK", "amount_minor": 1500}]),
    "adyen": Shipped("adyen.jsonl", 3, 2, 0, [
        {"currency": "EUR", "amount_minor": 1230, "customer_id": "shopper-1", "at": "2019-01-01T00:01:00"},
        {"currency": "IDR", "amount_minor": 100000}, {"currency": "ISK", "amount_minor": 10}]),
    "checkout-com": Shipped("checkout-com.jsonl", 2, 1, 0, [
        {"currency": "GBP", "amount_minor": 1000, "channel": "ecom", "at": "2019-01-01T00:01:00"},
        {"currency": "CLP", "amount_minor": 500, "channel": "moto"}]),
    "paypal": Shipped("paypal.jsonl", 2, 1, 0, [
        {"currency": "USD", "amount_minor": 3000, "card_id": "wallet-PAYER1", "country": "US"},
        {"currency": "JPY", "amount_minor": 1500}]),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield
    settings.cache_clear()


def imported(name: str, folder: Path) -> Path:
    arguments = [
        "--data",
        str(SAMPLES / EXPECTED[name].sample),
        "--mapping",
        name,
        "--out",
        str(folder / name),
    ]
    assert main([*arguments, "--most-rejected", "0"]) == 0
    return folder / name


@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_shipped_mapping_reads_its_sample(name: str, tmp_path: Path) -> None:
    out, expected = imported(name, tmp_path), EXPECTED[name]
    info = read_info(out)
    assert (info.rows, info.rejected, info.frauds) == (expected.rows, 0, expected.frauds)
    assert sum(info.source["left_out"].values()) == expected.left_out
    rows = read_dataset_transactions(out).to_pylist()
    for row, known in zip(rows, expected.first, strict=False):
        row["at"] = row["event_timestamp"].strftime("%Y-%m-%dT%H:%M:%S")
        assert {field: row[field] for field in known} == known


@pytest.mark.parametrize("name", list(EXPECTED))
def test_the_demo_runs_on_a_sample_or_says_at_once_why_not(name: str, tmp_path: Path) -> None:
    sample = SAMPLES / EXPECTED[name].sample
    out = imported(name, tmp_path)
    with pytest.raises(DemoError, match=r"holds \d known frauds .* too few to train"):
        check_trainable(out)
    with pytest.raises(DemoError, match="too short to train"):
        plan(out, Options(data=sample), timedelta(days=7))


@pytest.mark.parametrize("name", ["sparkov", "iso8583", "iso20022"])
def test_card_numbers_of_a_sample_become_tokens_and_stand_nowhere(name: str, tmp_path: Path) -> None:
    out = imported(name, tmp_path)
    first = read_dataset_transactions(out).to_pylist()[0]
    assert first["card_id"] == first["customer_id"] == token(VISA, read_key())
    assert all(VISA.encode() not in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_every_shipped_mapping_is_tried_here_and_documented() -> None:
    assert {path.stem for path in MAPPINGS.glob("*.yaml")} == set(EXPECTED)
    page = (REPOSITORY / "docs" / "importing.md").read_text()
    assert [name for name in EXPECTED if f"`{name}`" not in page] == []
    samples = {shipped.sample for shipped in EXPECTED.values()} | {"train_identity.csv"}
    assert {path.name for path in SAMPLES.iterdir()} == samples
