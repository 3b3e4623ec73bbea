"""The training set: reproducible, complete, and blind to what became known later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_repo.aggregates.grid import cuts_between
from feature_repo.aggregates.run import cut_folder, run_cuts
from feature_repo.store import apply_definitions, open_store
from feature_repo.velocity_log import build_velocity_log
from fraud.contract.money import rates_digest
from fraud.features.entities import ENTITY_BY_NAME
from fraud.features.feature_list import VECTOR
from stores.lake import read_transactions, write_labels, write_transactions
from stores.settings import settings
from tests.feature_repo.quick_spark import quick_spark
from tests.feature_repo.small_lake import START, small_labels, small_transactions, write_lake
from training import dataset
from training.dataset import DatasetError, TrainingSet, build_dataset, rebuild

FROM = START + timedelta(days=10)
TO = START + timedelta(days=12)
AS_OF = START + timedelta(days=18)


@dataclass
class World:
    """A lake, everything computed from it, and the set that was built."""

    spark: SparkSession
    home: Path
    transactions: pa.Table
    built: TrainingSet


def prepare(spark: SparkSession) -> None:
    run_cuts(cuts_between(FROM - timedelta(hours=12), TO), spark)
    build_velocity_log(START, START + timedelta(days=20), spark)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    spark = quick_spark(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLGATE_HOME", str(home))
        settings.cache_clear()
        transactions = small_transactions(rows=900, days=20)
        write_lake(settings().lake, transactions, small_labels(transactions))
        apply_definitions()
        prepare(spark)
        built = build_dataset(FROM, TO, as_of=AS_OF, out=home / "set", spark=spark)
        yield World(spark, home, transactions, built)
        spark.stop()
    settings.cache_clear()


def rows_of(built: TrainingSet) -> pa.Table:
    files = sorted(built.folder.glob("date=*/*.parquet"))
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in files])


def decided(start: datetime, end: datetime) -> pa.Table:
    """The lake's transactions that were decided in that time."""
    everything = read_transactions(settings().lake)
    low, high = (pa.scalar(time).cast(pa.timestamp("us", tz="UTC")) for time in (start, end))
    known = everything["created_timestamp"]
    return everything.filter(pc.and_(pc.greater_equal(known, low), pc.less(known, high)))


def test_every_transaction_is_there_once_in_order_with_the_whole_vector(world: World) -> None:
    table = rows_of(world.built)
    assert set(table["transaction_id"].to_pylist()) == set(decided(FROM, TO)["transaction_id"].to_pylist())
    assert table.num_rows == world.built.rows == len(set(table["transaction_id"].to_pylist()))
    order = list(zip(table["event_timestamp"].to_pylist(), table["transaction_id"].to_pylist(), strict=True))
    assert order == sorted(order)
    assert set(VECTOR) <= set(table.column_names)
    for name in ("customer_txn_count_30d", "customer_txn_count_24h", "merchant_fraud_rate_7d", "txn_hour"):
        assert table[name].null_count < table.num_rows, name


def test_labels_count_only_if_they_were_known_and_young_rows_are_immature(world: World) -> None:
    labels = small_labels(world.transactions).to_pylist()
    for row in (
        rows_of(world.built)
        .select(["transaction_id", "event_timestamp", "is_fraud", "label_mature"])
        .to_pylist()
    ):
        words = [each for each in labels if each["transaction_id"] == row["transaction_id"]]
        known = [each for each in words if each["created_timestamp"] <= AS_OF]
        latest = max(known, key=lambda each: (each["created_timestamp"], each["is_fraud"]), default=None)
        assert row["is_fraud"] == bool(latest and latest["is_fraud"])
        assert row["label_mature"] == (row["event_timestamp"] <= AS_OF - timedelta(days=7))


def test_the_manifest_says_what_the_set_was_made_of(world: World) -> None:
    manifest = json.loads((world.built.folder / "manifest.json").read_text())
    assert manifest["rows"] == world.built.rows and manifest["frauds"] == world.built.frauds
    assert manifest["features"] == list(VECTOR)
    assert manifest["label_maturity_days"] == 7 and manifest["source"]["files"] > 0
    assert manifest["reference_rates"] == rates_digest()
    assert len(manifest["definitions"]) == 64 and len(manifest["files"]) == 2


def test_the_set_is_a_saved_dataset_of_the_feature_store(world: World) -> None:
    table = rows_of(world.built)
    saved = open_store().get_saved_dataset(world.built.name)
    assert saved.tags["rows"] == str(world.built.rows) and saved.feature_service_name == "fraud_scoring_v1"
    found = pa.Table.from_pandas(saved.to_df()).sort_by(
        [("event_timestamp", "ascending"), ("transaction_id", "ascending")]
    )
    assert found["transaction_id"].to_pylist() == table["transaction_id"].to_pylist()
    for name in ("is_fraud", "label_mature", "weight", "country", *VECTOR):
        pairs = zip(found[name].to_pylist(), table[name].to_pylist(), strict=True)
        assert all(same(left, right) for left, right in pairs), name


def test_parity_rebuilds_the_same_features_from_the_transactions_alone(world: World) -> None:
    table = rows_of(world.built)
    some = decided(FROM, TO).filter(
        pc.is_in(pc.field("transaction_id"), table["transaction_id"].combine_chunks().slice(0, 40))
    )
    found = rebuild(some, world.spark)
    assert found["transaction_id"].to_pylist() == some["transaction_id"].to_pylist()
    by_id = {row["transaction_id"]: row for row in table.select(["transaction_id", *VECTOR]).to_pylist()}
    for row in found.to_pylist():
        for name in VECTOR:
            assert same(row[name], by_id[row["transaction_id"]][name]), name


def same(left: Any, right: Any) -> bool:
    missing = (left is None or left != left, right is None or right != right)
    return all(missing) if any(missing) else bool(left == right)


def test_nothing_that_became_known_later_changes_a_row(world: World) -> None:
    #   rows: FROM ------- TO      known later: a label, a corrected profile, a late event
    #                          AS_OF ------------x----------------->
    before = {
        path.relative_to(world.built.folder): path.read_bytes()
        for path in world.built.folder.glob("date=*/*")
    }
    table = rows_of(world.built)
    victim = table.filter(pc.invert(table["is_fraud"])).slice(5, 1).to_pylist()[0]
    later = AS_OF + timedelta(hours=1)
    report = {"transaction_id": victim["transaction_id"], "event_timestamp": victim["event_timestamp"]}
    report |= {"created_timestamp": later, "is_fraud": True, "source": "chargeback"}
    write_labels(pa.Table.from_pylist([report]), settings().lake, name="later")
    late = read_transactions(settings().lake, FROM, TO).slice(0, 1).to_pylist()[0]
    late |= {"transaction_id": "late", "created_timestamp": later, "ingest_seq": 10_000}
    write_transactions(pa.Table.from_pylist([late], world.transactions.schema), settings().lake, name="later")
    prepare(world.spark)
    correct_a_profile(victim["customer_id"], later)
    again = build_dataset(FROM, TO, as_of=AS_OF, out=world.home / "again", spark=world.spark)
    after = {path.relative_to(again.folder): path.read_bytes() for path in again.folder.glob("date=*/*")}
    assert after == before, "the same rows, byte for byte"


def correct_a_profile(customer: str, known: datetime) -> Path:
    """Another version of a cut's row, as a corrected aggregate would be: wrong, and known later."""
    folder = cut_folder(ENTITY_BY_NAME["customer"], FROM)
    table = pa.concat_tables([pq.read_table(path, partitioning=None) for path in folder.glob("*.parquet")])
    row = table.filter(pc.equal(table["customer_id"], customer)).slice(0, 1)
    row = row.set_column(
        row.schema.get_field_index("created_timestamp"),
        "created_timestamp",
        pa.array([known], table.schema.field(2).type),
    )
    at = row.schema.get_field_index("customer_txn_count_30d")
    row = row.set_column(at, "customer_txn_count_30d", pa.array([9999.0]))
    pq.write_table(row, folder / "correction.parquet")
    return folder


def test_a_corrected_aggregate_is_seen_from_the_moment_it_was_known_and_not_before(world: World) -> None:
    #   cut FROM ---- known ---- next cut is visible
    #        as it was  |  corrected  |  the next cut's
    known = FROM + timedelta(hours=2)
    following = FROM + timedelta(hours=6, minutes=15)
    inside = decided(known, following).to_pylist()[0]
    folder = correct_a_profile(inside["customer_id"], known)
    built = build_dataset(FROM, TO, as_of=AS_OF, out=world.home / "corrected", spark=world.spark)
    (folder / "correction.parquet").unlink()
    seen = {
        row["event_timestamp"]
        for row in rows_of(built).to_pylist()
        if row["customer_id"] == inside["customer_id"] and row["customer_txn_count_30d"] == 9999.0
    }
    assert inside["created_timestamp"] in seen
    assert all(known <= time < following for time in seen)


def test_an_interrupted_build_says_how_far_it_is_and_goes_on_with_what_it_lacks(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dataset, "CHUNK", timedelta(days=1))
    whole = dataset._build_chunk
    done: list[datetime] = []

    def build_chunk(spark: Any, span: Any, thin: Any, folder: Path, service: str) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(span[0])
        whole(spark, span, thin, folder, service)

    monkeypatch.setattr(dataset, "_build_chunk", build_chunk)
    out = world.home / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        build_dataset(FROM, TO, as_of=AS_OF, out=out, spark=world.spark)
    assert "joined (1 of 2)" in capsys.readouterr().err and not (out / "manifest.json").exists()

    def go_on(spark: Any, span: Any, thin: Any, folder: Path, service: str) -> None:
        done.append(span[0])
        whole(spark, span, thin, folder, service)

    monkeypatch.setattr(dataset, "_build_chunk", go_on)
    built = build_dataset(FROM, TO, as_of=AS_OF, out=out, spark=world.spark)
    assert done == [FROM, FROM + timedelta(days=1)], "each day once"
    assert "joined (2 of 2)" in capsys.readouterr().err
    assert built.rows == world.built.rows
    columns = ["transaction_id", "is_fraud", "txn_amount", "event_timestamp"]
    assert rows_of(built).select(columns).equals(rows_of(world.built).select(columns))


def test_thinning_keeps_every_fraud_and_weighs_the_rest(world: World) -> None:
    built = build_dataset(FROM, TO, as_of=AS_OF, out=world.home / "thin", negatives=20, spark=world.spark)
    table = rows_of(built)
    assert built.frauds == world.built.frauds and built.rows < world.built.rows
    genuine = table.filter(pc.invert(table["is_fraud"]))
    stands_for = genuine["weight"].to_pylist()[0] * genuine.num_rows
    assert 0.4 < stands_for / (world.built.rows - world.built.frauds) < 2.5
    assert set(table.filter(table["is_fraud"])["weight"].to_pylist()) == {1.0}


def test_a_range_without_transactions_or_the_wrong_way_round_is_refused(world: World) -> None:
    with pytest.raises(DatasetError, match="load the lake first"):
        build_dataset(
            START - timedelta(days=9),
            START - timedelta(days=8),
            as_of=AS_OF,
            out=world.home / "none",
            spark=world.spark,
        )
    with pytest.raises(DatasetError, match="from < to"):
        build_dataset(TO, FROM, as_of=AS_OF, out=world.home / "none", spark=world.spark)
