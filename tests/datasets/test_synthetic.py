"""The synthetic world obeys the contract, repeats by seed and looks as its plan says."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from datasets.folder import read_dataset_labels, read_dataset_transactions, read_info
from datasets.synthetic import KINDS, Drift, Plan, generate, write
from datasets.synthetic.__main__ import main
from datasets.synthetic.generate import Dataset
from fraud.contract.transaction import check, encode_transaction, parse_transaction
from stores.lake import LABEL_SCHEMA, TRANSACTION_SCHEMA, epoch_us, transactions_from_table

DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return generate(Plan(customers=800, days=40, seed=3))


def flags(dataset: Dataset, ids: pa.ChunkedArray) -> np.ndarray:
    found = pc.is_in(dataset.transactions.column("transaction_id"), value_set=ids.combine_chunks())
    return np.asarray(found.to_numpy())


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@given(st.integers(0, 2**32), st.integers(10, 60), st.integers(1, 5), st.sets(st.sampled_from(KINDS)))
@hypothesis_settings(max_examples=12, deadline=None)
def test_every_row_of_any_plan_passes_the_contract(
    seed: int, customers: int, days: int, kinds: set[str]
) -> None:
    drifts = tuple(Drift(kind, date(2026, 1, 2)) for kind in sorted(kinds))
    world = generate(Plan(customers=customers, days=days, seed=seed, fraud_share=0.05, drifts=drifts))
    assert world.transactions.schema == TRANSACTION_SCHEMA
    for transaction in transactions_from_table(world.transactions.slice(0, 400)):
        check(transaction)
        assert parse_transaction(encode_transaction(transaction)) == transaction


def test_the_derived_columns_are_those_of_the_contract(dataset: Dataset) -> None:
    sample = dataset.transactions.take(pa.array(np.arange(0, dataset.transactions.num_rows, 97)))
    rows = list(transactions_from_table(sample))
    assert sample.column("amount_minor").to_pylist() == [row.amount_minor for row in rows]
    assert sample.column("amount_reference").to_pylist() == [row.amount_reference for row in rows]
    assert len(set(sample.column("currency").to_pylist())) > 3


def test_rows_come_in_event_order_with_distinct_ids_within_the_plan(dataset: Dataset) -> None:
    times = epoch_us(dataset.transactions.column("event_timestamp"))
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    assert (np.diff(times) >= 0).all()
    assert times[0] >= start and times[-1] < start + 40 * DAY_US
    assert (times % 1000 == 0).all()
    ids = dataset.transactions.column("transaction_id")
    assert len(pc.unique(ids)) == len(ids)
    assert dataset.transactions.column("ingest_seq").to_pylist() == list(range(len(ids)))


def test_fraud_is_rare_and_about_an_eighth_of_it_leaves_no_trace(dataset: Dataset) -> None:
    rows = dataset.transactions.num_rows
    assert 0.005 < dataset.truth.num_rows / rows < 0.01
    stealthy = np.mean(dataset.truth.column("stealthy").to_pylist())
    assert 0.10 <= stealthy <= 0.15
    types = set(dataset.truth.column("type").to_pylist())
    assert types == {
        "card_testing", "account_takeover", "compromised_terminal", "high_amount",
        "impossible_travel", "merchant_ring", "stealthy",
    }  # fmt: skip


def test_a_customer_makes_about_two_transactions_a_day(dataset: Dataset) -> None:
    assert 1.7 < dataset.transactions.num_rows / (800 * 40) < 2.6


def test_labels_come_late_with_a_median_of_three_days_and_a_long_tail() -> None:
    labels = generate(Plan(customers=800, days=40, seed=5, fraud_share=0.1)).labels
    frauds = labels.filter(labels.column("is_fraud"))
    known, event = (epoch_us(frauds.column(n)) for n in ("created_timestamp", "event_timestamp"))
    delay = (known - event) / DAY_US
    assert len(delay) > 5_000
    assert delay.min() >= 1 / 24
    assert 2.7 < np.median(delay) < 3.3
    assert 18 < np.quantile(delay, 0.95) < 24


def test_every_fraud_is_reported_once_and_analysts_clear_some_others(dataset: Dataset) -> None:
    labels = dataset.labels
    assert labels.schema == LABEL_SCHEMA
    frauds = labels.filter(labels.column("is_fraud")).column("transaction_id").to_pylist()
    assert sorted(frauds) == sorted(dataset.truth.column("transaction_id").to_pylist())
    cleared = labels.filter(pc.invert(labels.column("is_fraud")))
    assert cleared.num_rows > 0
    assert set(cleared.column("source").to_pylist()) == {"analyst"}
    assert not set(cleared.column("transaction_id").to_pylist()) & set(frauds)


def test_no_single_column_gives_fraud_away(dataset: Dataset) -> None:
    """Rank correlation with fraud (AUC) of each raw column, missing values and name order included."""
    fraud = flags(dataset, dataset.truth.column("transaction_id"))
    for name in TRANSACTION_SCHEMA.names:
        if name in {"transaction_id", "event_timestamp", "created_timestamp", "ingest_seq"}:
            continue
        column = dataset.transactions.column(name)
        ranks = pc.rank(column, tiebreaker="dense").to_numpy().astype(int)
        ranks[column.is_null().to_numpy()] = 0
        frequency = np.bincount(ranks)[ranks]
        for scores in (ranks, frequency):
            assert 0.1 < auc(scores, fraud) < 0.9, name


def auc(scores: np.ndarray, fraud: np.ndarray) -> float:
    """The probability that a fraud scores above a genuine row, ties counting half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ranks = middle[inverse]
    positives, negatives = fraud.sum(), (~fraud).sum()
    return float((ranks[fraud].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def test_attacks_look_like_what_they_are_called(dataset: Dataset) -> None:
    rows = dataset.transactions.append_column("place", pa.array(np.arange(dataset.transactions.num_rows)))
    attacks = (
        dataset.truth.select(["transaction_id", "type", "episode"]).join(rows, "transaction_id").to_pandas()
    )
    by_type = dict(list(attacks.groupby("type")))
    testing = by_type["card_testing"].groupby("episode")
    assert testing.amount_reference.median().max() < 1_000
    assert (testing.device_id.nunique() == 1).all()
    assert (testing.card_id.nunique() / testing.size()).min() > 0.8
    takeover = by_type["account_takeover"].groupby("episode")
    assert (takeover.customer_id.nunique() == 1).all()
    genuine_devices = rows.filter(pa.array(~flags(dataset, dataset.truth.column("transaction_id"))))
    known = set(genuine_devices.column("device_id").to_pylist())
    assert not known & set(by_type["account_takeover"].device_id)
    terminals = by_type["compromised_terminal"].groupby("episode")
    assert (terminals.terminal_id.nunique() == 1).all()
    rings = by_type["merchant_ring"].groupby("episode")
    assert rings.merchant_id.nunique().max() <= 4
    assert rings.device_id.nunique().max() <= 3
    assert by_type["impossible_travel"].latitude.notna().all()


def test_honest_customers_travel_spree_and_change_devices(dataset: Dataset) -> None:
    fraud = flags(dataset, dataset.truth.column("transaction_id"))
    honest = dataset.transactions.filter(pa.array(~fraud)).to_pandas()
    countries = honest.dropna(subset=["country"]).groupby("customer_id").country.nunique()
    assert (countries > 1).mean() > 0.1
    gaps = (
        honest.sort_values(["customer_id", "event_timestamp"]).groupby("customer_id").event_timestamp.diff()
    )
    assert (gaps.dt.total_seconds() < 300).sum() > 100
    cards = honest.dropna(subset=["ip"]).groupby("ip").card_id.nunique()
    assert cards.max() > 5  # a carrier's address is shared by many


def test_the_same_plan_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    plan = Plan(customers=40, days=5, seed=11, drifts=(Drift("amounts_up", date(2026, 1, 3)),))
    for name in ("a", "b"):
        write(plan, tmp_path / name)
    write(Plan(customers=40, days=5, seed=12), tmp_path / "c")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def drifted(kind: str) -> tuple[Dataset, Dataset, int]:
    """The same world with and without a drift from its sixth day, and that day in microseconds."""
    since = date(2026, 1, 6)
    options = {"customers": 150, "days": 10, "seed": 1, "fraud_share": 0.03}
    quiet = generate(Plan(**options))  # type: ignore[arg-type]
    changed = generate(Plan(**options, drifts=(Drift(kind, since),)))  # type: ignore[arg-type]
    return quiet, changed, Drift(kind, since).from_ms * 1000


def halves(dataset: Dataset, since_us: int) -> tuple[pa.Table, pa.Table]:
    before = pa.array(epoch_us(dataset.transactions.column("event_timestamp")) < since_us)
    return dataset.transactions.filter(before), dataset.transactions.filter(pc.invert(before))


@pytest.mark.parametrize("kind", ["amounts_up", "halved_attacks", "field_missing"])
def test_a_drift_changes_nothing_before_its_date(kind: str) -> None:
    quiet, changed, since = drifted(kind)
    assert halves(quiet, since)[0].equals(halves(changed, since)[0])
    assert not halves(quiet, since)[1].equals(halves(changed, since)[1])


def test_amounts_rise_by_fifteen_percent() -> None:
    quiet, changed, since = drifted("amounts_up")
    sums = [np.sum(halves(each, since)[1].column("amount_reference").to_numpy()) for each in (quiet, changed)]
    assert sums[1] / sums[0] == pytest.approx(1.15, abs=0.02)


def test_only_attacks_that_leave_a_trace_are_halved() -> None:
    quiet, changed, _ = drifted("halved_attacks")
    traced = quiet.truth.filter(pc.invert(quiet.truth.column("stealthy"))).column("transaction_id")
    differs = pc.not_equal(
        quiet.transactions.column("amount_minor"), changed.transactions.column("amount_minor")
    ).to_numpy()
    assert differs.any()
    assert not (differs & ~flags(quiet, traced)).any()


def test_a_field_goes_missing() -> None:
    quiet, changed, since = drifted("field_missing")
    nulls = [halves(each, since)[1].column("device_id").null_count for each in (quiet, changed)]
    rows = halves(quiet, since)[1].num_rows
    assert (nulls[1] - nulls[0]) / (rows - nulls[0]) == pytest.approx(0.6, abs=0.06)


def test_purchases_move_online() -> None:
    quiet, changed, since = drifted("channel_mix")

    def online(table: pa.Table) -> float:
        return float(np.mean(np.array(table.column("channel").to_pylist()) == "ecom"))

    assert online(halves(changed, since)[1]) - online(halves(quiet, since)[1]) > 0.1
    assert abs(online(halves(changed, since)[0]) - online(halves(quiet, since)[0])) < 0.03


def test_a_new_type_of_fraud_appears_only_after_its_date() -> None:
    quiet, changed, since = drifted("new_fraud_type")
    assert "mule_transfer" not in quiet.truth.column("type").to_pylist()
    mules = changed.truth.filter(pc.equal(changed.truth.column("type"), "mule_transfer"))
    assert mules.num_rows > 5
    assert (epoch_us(mules.column("event_timestamp")) >= since).all()


def test_the_command_writes_a_dataset_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    arguments = ["--customers", "30", "--days", "4", "--out", str(out), "--drift", "amounts_up@2026-01-03"]
    assert main(arguments) == 0
    assert main(arguments) == 0  # again, over the first
    info = read_info(out)
    assert info.rows == read_dataset_transactions(out).num_rows > 100
    labels = read_dataset_labels(out)
    assert info.frauds == np.sum(labels.column("is_fraud").to_pylist())
    assert json.loads((out / "drift.json").read_text())[0]["since"] == "2026-01-03T00:00:00Z"
    assert [path.stem for path in sorted((out / "transactions").iterdir())] == [
        "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"
    ]  # fmt: skip
    assert f"{info.rows:,} transactions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--drift", "amounts_up"], "should be kind@YYYY-MM-DD"),
        (["--drift", "moon@2026-01-02"], "should be one of amounts_up"),
        (["--customers", "1"], "at least 10 customers"),
        (["--fraud-share", "0.9"], "fraud_share should be"),
    ],
)
def test_a_wrong_option_is_explained(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path / "set")])
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_dataset_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main(["--customers", "30", "--days", "1", "--out", str(tmp_path)])
    assert (tmp_path / "thesis.txt").read_text() == "mine"
