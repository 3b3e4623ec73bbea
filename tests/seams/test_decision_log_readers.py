"""One real decision log, written by a worker: what audit, parity, drift and the backtest read in it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import redis

from bentos.log.decision_files import convert_all
from bentos.rules.ruleset import DEFAULT_RULES, load_rules
from bentos.tools.audit import audit
from bentos.tools.backtest_rules import backtest
from embedded.redis_server import RedisServer
from fraud.features.feature_list import VECTOR
from monitoring.decisions import feature_columns, matured, read_decisions
from monitoring.drift.report import drift_report, feature_names
from monitoring.gates.run import run_gate
from monitoring.parity.comparison import compare
from monitoring.status.health import decisions as decisions_part
from stores.decisions import COLUMNS, RECORD, decisions_folder, parquet_schema
from stores.keys import open_keys
from stores.lake_files import parquet_files
from stores.settings import load_settings
from tests.bentos.one_worker import worker
from tests.bentos.running import save_model

DECISIONS = 300


@pytest.fixture
def log(home: Path, redis_server: RedisServer) -> Path:
    """The home of a service that decided `DECISIONS` payments, its journal made files."""
    save_model(home, "one", trees=10)
    url = f"redis://127.0.0.1:{redis_server.port}/11"
    with redis.Redis.from_url(url) as client:
        client.flushdb()

    async def run() -> None:
        async with worker(home, url) as (_, post):
            for n in range(DECISIONS):
                answer = await post(
                    transaction_id=f"log-{n}", customer_id=f"customer-{n}", card_id=f"card-{n}",
                    amount=f"{10 + n}.50", terminal_id=None if n % 3 else f"terminal-{n}",
                )  # fmt: skip
                assert answer.status_code == 200

    asyncio.run(run())
    assert convert_all(home) == DECISIONS
    return home


@pytest.mark.slow
def test_every_reader_finds_in_the_log_what_the_worker_decided(log: Path, tmp_path: Path) -> None:
    seal = open_keys(load_settings()).seal("log")
    answered = [f"log-{n}" for n in range(DECISIONS)]
    findings = audit(log, seal, answered)
    assert (findings.entries, findings.problems) == (DECISIONS, [])

    table = read_decisions(decisions_folder(log))
    assert table.num_rows == DECISIONS
    assert feature_columns(table) == list(VECTOR)
    assert sorted(table["transaction_id"].to_pylist()) == sorted(answered)

    rebuilt = table.select(["transaction_id", *VECTOR]).take(list(reversed(range(DECISIONS))))
    same = compare(table, rebuilt, VECTOR)
    assert (same.rows, same.mismatched_rows, same.unmatched) == (DECISIONS, 0, 0)
    place = rebuilt.schema.get_field_index("txn_amount")
    other = rebuilt.set_column(place, "txn_amount", pc.add(rebuilt["txn_amount"], 1.0))
    assert compare(table, other, VECTOR).mismatched_rows == DECISIONS

    frame = table.to_pandas()
    reference = frame[[*VECTOR, "score"]].assign(is_fraud=0)
    assert feature_names(reference, frame) == list(VECTOR)
    result = drift_report(reference, frame, tmp_path / "drift", features=["txn_amount"], evidently=False)
    assert result.drifted_features == []

    labels = pa.table({"transaction_id": ["log-7"], "is_fraud": [True]})
    later = datetime.now(UTC) + timedelta(days=30)
    known = matured(frame, labels, as_of=later, maturity_days=7)
    assert known.loc[known["is_fraud"] == 1, "transaction_id"].tolist() == ["log-7"]

    rules = load_rules(DEFAULT_RULES)
    figures = backtest(parquet_files(decisions_folder(log)), rules, rules, {"log-7"}, log)
    assert (figures.rows, figures.frauds, figures.changes) == (DECISIONS, 1, {})
    assert figures.decisions == dict(frame["decision"].value_counts())
    gate = run_gate("decisions", decisions_folder(log), as_of=datetime.now(UTC))
    assert gate.rows == DECISIONS and not [
        failure for failure in gate.failures if failure.fault == "wrong columns"
    ]
    assert f"{DECISIONS:,}" in " ".join(
        [decisions_part(load_settings()).figure, *decisions_part(load_settings()).lines]
    )


def test_a_file_has_the_columns_that_are_declared_and_no_other(log: Path) -> None:
    for path in parquet_files(decisions_folder(log)):
        assert pq.read_schema(path).equals(parquet_schema())
    types = {name: str(parquet_schema().field(name).type) for name in ("amount_minor", "decided_at", "hash")}
    assert types == {
        "amount_minor": "int64", "decided_at": "timestamp[us, tz=UTC]", "hash": "fixed_size_binary[32]",
    }  # fmt: skip
    assert len(parquet_schema()) == len(COLUMNS) - 1 + len(VECTOR) + 1
    assert RECORD[0] == "series" and RECORD[-1] == "previous_hash"
    assert pd.Series(parquet_schema().names).is_unique
