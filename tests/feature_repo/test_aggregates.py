"""Profiles as of a cut: equal to DuckDB, repeatable, and blind to what came later."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from datasets.lake import write_labels, write_transactions
from feature_repo.aggregates.grid import cut_number, cut_time, cuts_between
from feature_repo.aggregates.run import cut_folder, profile_schema, run_cuts
from fraud.entities import ENTITIES, ENTITY_BY_NAME, Entity
from fraud.settings import settings
from tests.feature_repo.profiles_in_sql import oracle_profiles
from tests.feature_repo.small_lake import START, small_labels, small_transactions, write_lake

#: Early (few days of history), in the middle, on a cut with events exactly on it, at the end.
CUTS = [START + timedelta(days=2), START + timedelta(days=31, hours=6), START + timedelta(days=45)]


def profiles_of(entity: Entity, cut: datetime) -> dict[str, dict[str, Any]]:
    files = sorted(cut_folder(entity, cut).glob("*.parquet"))
    rows = (
        pa.concat_tables([pq.read_table(path, partitioning=None) for path in files]).to_pylist()
        if files
        else []
    )
    return {row.pop(entity.key): row for row in rows}


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.glob("**/*.parquet"))
    }


@pytest.fixture
def lake(home: Path) -> tuple[pa.Table, pa.Table]:
    transactions = small_transactions()
    labels = small_labels(transactions)
    write_lake(settings().lake, transactions, labels)
    return transactions, labels


def test_every_profile_of_every_entity_equals_duckdb(
    spark: SparkSession, lake: tuple[pa.Table, pa.Table]
) -> None:
    transactions, labels = lake
    run_cuts(CUTS, spark)
    for cut in CUTS:
        for entity in ENTITIES:
            expected, found = oracle_profiles(entity, cut, transactions, labels), profiles_of(entity, cut)
            assert set(found) == set(expected), (entity.name, cut)
            for key, features in found.items():
                assert features.pop("event_timestamp") == cut
                assert features.pop("created_timestamp") == cut + timedelta(minutes=15)
                for name, value in features.items():
                    # What DuckDB's grouped queries do not return is a count of nothing.
                    wanted = expected[key].get(
                        name, 0 if "_count_" in name or "_sum_" in name or "_distinct_" in name else None
                    )
                    same = (
                        value is None
                        if wanted is None
                        else value == pytest.approx(wanted, rel=1e-9, abs=1e-6)
                    )
                    assert same, (entity.name, cut, key, name, value, wanted)


def test_cuts_of_a_range_give_the_bytes_of_cuts_one_by_one(
    spark: SparkSession, lake: tuple[pa.Table, pa.Table]
) -> None:
    cuts = cuts_between(START + timedelta(days=40), START + timedelta(days=41))
    run_cuts(cuts, spark)
    together = digests(settings().lake / "profiles")
    for cut in cuts[1:3]:
        run_cuts([cut], spark)
    assert len(together) == len(cuts) * len(ENTITIES)
    assert digests(settings().lake / "profiles") == together


def test_a_late_label_and_a_late_transaction_change_only_later_cuts(
    spark: SparkSession, lake: tuple[pa.Table, pa.Table]
) -> None:
    #      event       known
    #   ----|------C1----|-----C2---->   C1 must not move, C2 must.
    transactions, _ = lake
    first, second = START + timedelta(days=44), START + timedelta(days=44, hours=6)
    run_cuts([first, second], spark)
    before = {cut: profiles_of(ENTITIES[2], cut) for cut in (first, second)}
    row = (
        transactions.filter(pa.array(np.array(transactions["merchant_id"]) == "m0"))
        .slice(50, 1)
        .to_pylist()[0]
    )
    known = first + timedelta(hours=1)
    report = {name: row[name] for name in ("transaction_id", "event_timestamp")}
    report |= {"created_timestamp": known, "is_fraud": True, "source": "analyst"}
    late = row | {
        "transaction_id": "late",
        "event_timestamp": first - timedelta(hours=1),
        "created_timestamp": known,
    }
    write_labels(pa.Table.from_pylist([report]), settings().lake, name="later")
    write_transactions(pa.Table.from_pylist([late], transactions.schema), settings().lake, name="later")
    run_cuts([first, second], spark)
    after = {cut: profiles_of(ENTITIES[2], cut) for cut in (first, second)}
    assert after[first] == before[first]
    changed = after[second]["m0"]
    assert changed["merchant_txn_count_1d"] == before[second]["m0"]["merchant_txn_count_1d"] + 1
    assert changed["merchant_fraud_count_1d"] == before[second]["m0"]["merchant_fraud_count_1d"] + 1


def test_an_entity_that_fell_silent_loses_its_profile_when_nothing_of_it_is_left(
    spark: SparkSession, home: Path
) -> None:
    row = small_transactions(rows=40, days=1).slice(0, 1)
    write_transactions(row, settings().lake, name="one")
    longest = timedelta(days=30 + settings().label_maturity_days)
    event = row["event_timestamp"][0].as_py()
    last = cut_time(
        cut_number(event.replace(hour=event.hour // 6 * 6, minute=0, second=0, microsecond=0)) + 1
    )
    last += longest - timedelta(hours=6)
    run_cuts([last, last + timedelta(hours=6)], spark)
    customer = ENTITY_BY_NAME["customer"]
    assert len(profiles_of(customer, last)) == 1
    assert profiles_of(customer, last + timedelta(hours=6)) == {}


def test_a_cut_off_the_grid_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="is not on the grid"):
        run_cuts([datetime(2026, 1, 5, 7, tzinfo=UTC)])
    with pytest.raises(ValueError, match="needs an offset"):
        run_cuts([datetime(2026, 1, 5, 6)])


def test_every_declared_profile_feature_is_computed() -> None:
    for entity in ENTITIES:
        assert profile_schema(entity).names[:3] == [entity.key, "event_timestamp", "created_timestamp"]
        assert len(set(profile_schema(entity).names)) == len(profile_schema(entity).names)
