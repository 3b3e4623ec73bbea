"""The velocity log: the stream's own states, rebuilt by Spark, whole or day by day."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_repo.velocity_log import build_velocity_log, newest_states
from fraud.features.entities import ENTITIES, Entity
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from stores.lake import transactions_from_table
from stores.settings import settings
from tests.feature_repo.small_lake import START, small_labels, small_transactions, write_lake

DAYS = 12
END = START + timedelta(days=DAYS + 3)

Row = dict[str, Any]


def expected_log(transactions: pa.Table) -> dict[str, list[Row]]:
    """Every state after every transaction, by a plain loop in arrival order."""
    states: dict[tuple[str, str], VelocityState] = {}
    log: dict[str, list[Row]] = {entity.name: [] for entity in ENTITIES}
    arrived = transactions.column("created_timestamp").to_pylist()
    for transaction, known in zip(transactions_from_table(transactions), arrived, strict=True):
        seen = observe(transaction)
        for place, entity in enumerate(ENTITIES):
            key = seen.ids[place]
            if key is None:
                continue
            state = states.setdefault((entity.name, key), VelocityState(entity))
            if state.add(seen, place):
                version = known.fromtimestamp(0, known.tzinfo) + timedelta(microseconds=state.version)
                log[entity.name].append(
                    {
                        entity.key: key,
                        "event_timestamp": version,
                        "created_timestamp": max(version, known + timedelta(microseconds=1)),
                        "transaction_timestamp": transaction.event_time,
                        entity.state_feature: state.pack(),
                    }
                )
    return log


def logged(entity: Entity) -> list[Row]:
    files = sorted((settings().lake / "velocity" / entity.name).glob("date=*/*.parquet"))
    rows = [row for path in files for row in pq.read_table(path, partitioning=None).to_pylist()]
    for row in rows:
        row.pop("ingest_seq")
    return rows


def by_key_and_version(rows: list[Row], entity: Entity) -> list[Row]:
    return sorted(rows, key=lambda row: (row[entity.key], row["event_timestamp"]))


def files_of(root: Path) -> dict[str, bytes]:
    return {f"{path.relative_to(root)}": path.read_bytes() for path in sorted(root.glob("**/*.parquet"))}


@pytest.fixture
def transactions(home: Path) -> pa.Table:
    table = small_transactions(rows=1500, days=DAYS)
    write_lake(settings().lake, table, small_labels(table))
    return table


def test_the_log_holds_the_states_of_a_plain_loop_byte_for_byte(
    spark: SparkSession, transactions: pa.Table
) -> None:
    written = build_velocity_log(START, END, spark)
    expected = expected_log(transactions)
    for entity in ENTITIES:
        found = by_key_and_version(logged(entity), entity)
        assert found == by_key_and_version(expected[entity.name], entity), entity.name
        assert written[entity.name] == len(found) > 0
        assert dict(newest_states(entity, END)) == {
            row[entity.key]: row[entity.state_feature] for row in by_key_and_version(found, entity)
        }


def test_a_range_continues_from_the_states_before_it_and_can_be_run_again(
    spark: SparkSession, transactions: pa.Table
) -> None:
    #   |---- all days ----|   equals   |--- first ---|-- rest --|-- rest again --|
    middle = START + timedelta(days=5)
    root = settings().lake / "velocity"
    build_velocity_log(START, END, spark)
    whole = files_of(root)
    build_velocity_log(middle, END, spark)
    assert files_of(root) == whole


def test_a_state_is_not_visible_before_its_transaction_arrived(
    spark: SparkSession, transactions: pa.Table
) -> None:
    build_velocity_log(START, END, spark)
    late = 0
    for row in logged(ENTITIES[0]):
        assert row["created_timestamp"] >= row["event_timestamp"] > row["transaction_timestamp"]
        late += row["created_timestamp"] > row["event_timestamp"]
    assert late > 5
    before = START + timedelta(days=3)
    expected = {
        row["customer_id"]: row["customer_state"]
        for row in by_key_and_version(expected_log(transactions)["customer"], ENTITIES[0])
        if row["created_timestamp"] < before
    }
    assert dict(newest_states(ENTITIES[0], before)) == expected


def test_an_empty_range_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="holds no time"):
        build_velocity_log(START, START - timedelta(days=1))
