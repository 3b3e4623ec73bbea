"""The whole loop on a small synthetic set: real Redis, Spark, Bytewax and the service over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from embedded.redis_server import free_port, start_redis
from fraud.features.feature_list import VECTOR
from monitoring.decisions import read_decisions
from stores.settings import REPOSITORY
from tests.monitoring.looking import looked_at, need_browser

pytestmark = pytest.mark.slow
_FEAST = str(Path(sys.executable).with_name("feast"))


@dataclass(frozen=True)
class Loop:
    """A finished demo: its home, summary, output and the environment it ran in."""

    home: Path
    summary: dict[str, Any]
    printed: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    root = tmp_path_factory.mktemp("loop")
    environment = {
        **os.environ,
        "TOLLGATE_HOME": str(root / "home"), "TOLLGATE_RESULTS": str(root / "results"), "TZ": "UTC",
        "TOLLGATE_SPARK_MEMORY": "2g",
    }  # fmt: skip
    run = subprocess.run(
        [
            sys.executable, "-m", "embedded.demo", "--customers", "500", "--days", "26", "--start", "2026-01-05",
            "--train-days", "8", "--replay-days", "1", "--negatives", "6000",
        ],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=540, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    summary = json.loads((root / "results" / "summary.json").read_text())
    return Loop(root / "home", summary, run.stdout, environment)


@pytest.fixture(scope="module")
def online(loop: Loop) -> Iterator[dict[str, str]]:
    """The environment of a shell on the demo's home, with its Redis brought back."""
    server = start_redis(loop.home / "redis", free_port(), durable=True)
    yield {**loop.environment, "TOLLGATE_REDIS_URL": server.url}
    server.stop()


def test_the_summary_holds_every_promised_figure(loop: Loop) -> None:
    promised = {
        "dataset", "events_processed", "rejected", "fraud_detected", "decisions", "latency_p50_ms",
        "latency_p95_ms", "latency_p99_ms", "throughput_events_per_sec", "error_rate", "model_roc_auc",
        "average_precision", "precision_at_recall_70", "recall_at_fpr_2", "brier", "brier_base_rate",
        "avg_prediction", "freshness_p99_ms", "parity", "drift", "steps",
    }  # fmt: skip
    assert promised <= set(loop.summary)
    assert {"rows", "features", "mismatched_rows", "max_abs_diff", "worst_feature"} <= set(
        loop.summary["parity"]
    )
    assert all(step["seconds"] >= 0 for step in loop.summary["steps"])


def test_every_replayed_transaction_is_scored_without_an_error(loop: Loop) -> None:
    summary = loop.summary
    assert summary["error_rate"] == 0
    assert summary["events_processed"] == sum(summary["decisions"].values()) > 200


def test_the_served_vectors_equal_the_point_in_time_rebuild(loop: Loop) -> None:
    parity = loop.summary["parity"]
    assert parity["rows"] == loop.summary["events_processed"]
    assert parity["features"] == len(VECTOR)
    assert parity["mismatched_rows"] == 0, parity


def test_the_decision_log_holds_each_transaction_once_and_no_more(loop: Loop) -> None:
    ids = read_decisions(loop.home / "decisions", columns=["transaction_id"])["transaction_id"].to_pylist()
    assert len(ids) == len(set(ids)) == loop.summary["events_processed"]


def test_the_model_ranks_frauds_far_above_chance(loop: Loop) -> None:
    assert loop.summary["brier"] < loop.summary["brier_base_rate"] * 1.2
    assert loop.summary["model_roc_auc"] > 0.7


def test_the_demo_leaves_nothing_running(loop: Loop) -> None:
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(loop.home) not in running


def test_the_pages_of_a_run_are_drawn_and_fit(loop: Loop, tmp_path: Path) -> None:
    need_browser()
    results = loop.home.parent / "results"
    for pattern, expected in [
        ("models/*/card.html", "average precision"),
        ("drift/replay/drift.html", "What changed"),
    ]:
        page = next(results.glob(pattern))
        assert expected in looked_at(page, tmp_path), f"{page.name} lacks {expected}"


def test_the_sampled_parity_of_the_schedule_rebuilds_the_last_hours(loop: Loop) -> None:
    times = read_decisions(loop.home / "decisions", columns=["event_timestamp"])["event_timestamp"]
    until = max(times.to_pylist()) + timedelta(seconds=1)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.velocity", "--until", until.isoformat(), "--sample", "40", "--no-docs"],
        cwd=REPOSITORY, env=loop.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "decisions rebuilt, 0 differ" in done.stdout
    published = (loop.home / "metrics" / "parity.prom").read_text()
    assert "tollgate_parity_mismatched_share 0" in published


def test_feasts_own_commands_work_from_a_shell(loop: Loop, online: dict[str, str]) -> None:
    def feast(*arguments: str) -> str:
        done = subprocess.run(
            [_FEAST, "-c", "feature_repo", *arguments],
            cwd=REPOSITORY,
            env=online,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    feast("apply")
    assert "customer_profile" in feast("feature-views", "list")
    feast("materialize-incremental", "2026-01-31T00:00:00")


def test_online_features_are_read_as_feasts_documentation_shows(loop: Loop, online: dict[str, str]) -> None:
    customer = read_decisions(loop.home / "decisions", columns=["customer_id"])
    script = (
        "import json, sys\nfrom feast import FeatureStore\n"
        "store = FeatureStore('feature_repo')\n"
        "rows = store.get_online_features(features=['customer_profile:customer_txn_count_30d'], "
        "entity_rows=[{'customer_id': sys.argv[1]}]).to_dict()\nprint(json.dumps(rows))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, customer["customer_id"][0].as_py()],
        cwd=REPOSITORY, env=online, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.strip().splitlines()[-1])
    assert rows["customer_txn_count_30d"][0] > 0
