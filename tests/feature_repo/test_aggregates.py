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

from feature_repo.aggregates.grid import NOTHING, cut_number, cut_time, cuts_between, largest
from feature_repo.aggregates.run import cut_folder, profile_schema, run_cuts
from fraud.features.entities import ENTITIES, ENTITY_BY_NAME, Entity
from stores.lake import write_labels, write_transactions
from stores.lake_files import write_parquet
from stores.outcome_files import OUTCOME_SCHEMA
from stores.settings import settings
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
    write_labels(labels.slice(20, 30), settings().lake, name="again")
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
                        name,
                        0
                        if any(part in name for part in ("_count_", "_sum_", "_distinct_", "_risk_"))
                        else None,
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
    longest = timedelta(days=30 + settings().history.label_maturity_days)
    event = row["event_timestamp"][0].as_py()
    last = cut_time(
        cut_number(event.replace(hour=event.hour // 6 * 6, minute=0, second=0, microsecond=0)) + 1
    )
    last += longest - timedelta(hours=6)
    run_cuts([last, last + timedelta(hours=6)], spark)
    customer = ENTITY_BY_NAME["customer"]
    assert len(profiles_of(customer, last)) == 1
    assert profiles_of(customer, last + timedelta(hours=6)) == {}


def test_days_since_frauds_move_with_what_was_known(spark: SparkSession, home: Path) -> None:
    rows = small_transactions(rows=40, days=1).slice(0, 3).to_pylist()
    day = START + timedelta(days=10)
    events = [day - timedelta(days=5), day - timedelta(days=2), day - timedelta(days=1)]
    for place, (row, event) in enumerate(zip(rows, events, strict=True)):
        row |= {"transaction_id": f"t{place}", "customer_id": "c", "event_timestamp": event}
        row |= {"created_timestamp": event, "amount_reference": 100 * (place + 1)}
    write_transactions(
        pa.Table.from_pylist(rows, small_transactions(rows=40, days=1).schema), settings().lake, name="three"
    )
    words = [(1, day + timedelta(hours=1), True), (1, day + timedelta(days=1, hours=1), False)]
    reports = [
        {"transaction_id": f"t{place}", "event_timestamp": events[place], "created_timestamp": known,
         "is_fraud": fraud, "source": "analyst"}
        for place, known, fraud in words
    ]  # fmt: skip
    write_labels(pa.Table.from_pylist(reports), settings().lake, name="words")
    cuts = [day, day + timedelta(hours=6), day + timedelta(days=3), day + timedelta(days=9)]
    run_cuts(cuts, spark)
    found = [profiles_of(ENTITY_BY_NAME["customer"], cut)["c"] for cut in cuts]
    lead = [profile["customer_days_genuine_minus_fraud"] for profile in found]
    # Nothing has ripened when the fraud becomes known: as if the last genuine one were at the edge, 37 days back.
    assert lead == [None, 37 - 2.25, None, None]
    assert [profile["customer_days_since_first_fraud_30d"] for profile in found] == [None, 2.25, None, None]
    assert [profile["customer_fraud_risk_30d"] for profile in found] == [0, 0, 0, 0]
    assert {profile["customer_amount_max_30d"] for profile in found} == {300.0}


def test_the_largest_of_overlapping_runs_is_what_looking_at_each_cell_gives() -> None:
    random = np.random.default_rng(3)
    for width in (1, 2, 5, 124):
        low = random.integers(0, width + 1, 200)
        high = np.minimum(low + random.integers(0, width + 1, 200), width)
        rows, values = random.integers(0, 7, 200), random.integers(-50, 50, 200)
        found = largest(rows, low, high, values, (7, width))
        for row in range(7):
            for cell in range(width):
                inside = values[(rows == row) & (low <= cell) & (cell < high)]
                assert found[row, cell] == (inside.max() if inside.size else NOTHING)


def test_a_cut_off_the_grid_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="is not on the grid"):
        run_cuts([datetime(2026, 1, 5, 7, tzinfo=UTC)])
    with pytest.raises(ValueError, match="needs an offset"):
        run_cuts([datetime(2026, 1, 5, 6)])


def test_every_declared_profile_feature_is_computed() -> None:
    for entity in ENTITIES:
        assert profile_schema(entity).names[:3] == [entity.key, "event_timestamp", "created_timestamp"]
        assert len(set(profile_schema(entity).names)) == len(profile_schema(entity).names)


def test_what_outcomes_took_is_spent_no_longer_from_the_cut_on_that_knows_of_it(
    spark: SparkSession, home: Path
) -> None:
    rows = small_transactions(rows=40, days=1).slice(0, 3).to_pylist()
    day = START + timedelta(days=10)
    for place, row in enumerate(rows):
        event = day - timedelta(hours=5 * (place + 1))
        row |= {"transaction_id": f"t{place}", "customer_id": "c", "event_timestamp": event}
        row |= {"created_timestamp": event, "amount_reference": 100 * (place + 1)}
    write_transactions(
        pa.Table.from_pylist(rows, small_transactions(rows=40, days=1).schema), settings().lake, name="three"
    )
    known = day + timedelta(hours=1)
    shared = ("transaction_id", "event_timestamp", "customer_id", "card_id", "merchant_id", "terminal_id",
              "device_id", "ip", "currency")  # fmt: skip
    outcomes = [
        {name: rows[place][name] for name in shared}
        | {"outcome_id": "o", "kind": kind, "created_timestamp": known, "reported_timestamp": known,
           "client": "acquirer", "spent_before": 100 * (place + 1), "spent_after": after}
        for place, kind, after in ((0, "declined", 0), (2, "reversed", 50))
    ]  # fmt: skip
    for each in outcomes:
        path = settings().lake / "outcomes" / f"date={each['event_timestamp']:%Y-%m-%d}"
        write_parquet(
            pa.Table.from_pylist([each], OUTCOME_SCHEMA), path / f"{each['transaction_id']}.parquet"
        )
    cuts = [day, day + timedelta(hours=6)]
    run_cuts(cuts, spark)
    before, after = (profiles_of(ENTITY_BY_NAME["customer"], cut)["c"] for cut in cuts)
    assert (before["customer_txn_count_7d"], before["customer_amount_sum_7d"]) == (3, 600)
    assert (after["customer_txn_count_7d"], after["customer_amount_sum_7d"]) == (3, 250)
    assert after["customer_amount_mean_7d"] == pytest.approx(250 / 3)
    assert after["customer_amount_std_7d"] == pytest.approx(np.std([0, 200, 50]))
