"""Numbers of workers as Prometheus text: counters of all that ever were, gauges of those that live."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bentos.base.metrics import SIZES, Metrics
from bentos.base.worker_metrics import WorkerMetrics
from machine.process_identity import process_identity


def parsed(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
def sibling() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield child
    child.communicate()


def left_by(process: int, run: Path, metrics: Metrics) -> None:
    """What another worker of this service leaves."""
    parent, worker = process_identity(os.getppid()), process_identity(process)
    (run / "metrics" / str(parent) / f"{worker}.json").write_text(json.dumps(metrics.snapshot()))


def test_the_text_says_what_was_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    workers = WorkerMetrics(metrics, tmp_path)
    metrics.count("decisions_total", "APPROVE", "champion", by=3)
    metrics.count("rule_errors_total")
    metrics.gauge("breaker_state", 2, "redis")
    for size in (1, 3, 3, 5000):
        metrics.histogram("batch_size").observe(size)
    found = parsed(workers.text())
    assert found["tollgate_decisions_total", (("decision", "APPROVE"), ("variant", "champion"))] == 3
    assert found["tollgate_rule_errors_total", ()] == 1
    assert found["tollgate_breaker_state", (("breaker", "redis"),)] == 2
    buckets = [found["tollgate_batch_size_bucket", (("le", f"{float(size)}"),)] for size in SIZES]
    assert buckets == [1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    assert found["tollgate_batch_size_bucket", (("le", "+Inf"),)] == 4
    assert (found["tollgate_batch_size_count", ()], found["tollgate_batch_size_sum", ()]) == (4, 5007)


def test_a_label_that_holds_anything_stays_one_label(tmp_path: Path) -> None:
    metrics = Metrics()
    name = 'a"b\\c\nd{},= \u2028é'
    metrics.count("rule_hits_total", name, "block")
    found = parsed(WorkerMetrics(metrics, tmp_path).text())
    assert found["tollgate_rule_hits_total", (("action", "block"), ("rule", name))] == 1


def test_workers_are_added_up_and_the_largest_state_is_the_services(
    tmp_path: Path, sibling: subprocess.Popen[bytes]
) -> None:
    mine, other = Metrics(), Metrics()
    workers = WorkerMetrics(mine, tmp_path)
    for metrics, number in ((mine, 2), (other, 5)):
        metrics.count("labels_total", "analyst", by=number)
        metrics.gauge("in_flight", number)
        metrics.gauge("rules_refused", number == 5)
        metrics.histogram("score", "champion").observe(0.5, number)
    left_by(sibling.pid, tmp_path, other)
    workers.write()  # its own file is not counted beside itself
    found = parsed(workers.text())
    assert found["tollgate_labels_total", (("source", "analyst"),)] == 7
    assert found["tollgate_in_flight", ()] == 7
    assert found["tollgate_rules_refused", ()] == 1
    assert found["tollgate_score_count", (("variant", "champion"),)] == 7


def test_what_a_dead_worker_counted_stays_and_its_gauges_go(
    tmp_path: Path, sibling: subprocess.Popen[bytes]
) -> None:
    other = Metrics()
    other.count("labels_total", "analyst", by=5)
    other.gauge("in_flight", 5)
    workers = WorkerMetrics(Metrics(), tmp_path)
    left_by(sibling.pid, tmp_path, other)
    sibling.communicate()
    for _ in range(2):
        found = parsed(workers.text())
        assert found["tollgate_labels_total", (("source", "analyst"),)] == 5
        assert ("tollgate_in_flight", ()) not in found
        workers = WorkerMetrics(Metrics(), tmp_path)  # the next one buries it


def test_a_worker_that_dies_again_and_again_leaves_one_file(tmp_path: Path) -> None:
    other = Metrics()
    other.count("labels_total", "analyst")
    other.histogram("batch_size").observe(8)
    WorkerMetrics(Metrics(), tmp_path)
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
        )
        left_by(child.pid, tmp_path, other)
        child.communicate()
        workers = WorkerMetrics(Metrics(), tmp_path)
    found = parsed(workers.text())
    assert found["tollgate_labels_total", (("source", "analyst"),)] == 5
    assert found["tollgate_batch_size_bucket", (("le", "8.0"),)] == 5
    (folder,) = (tmp_path / "metrics").iterdir()
    assert sorted(path.name for path in folder.glob("*.json")) == ["gone.json"]


def test_a_service_that_has_ended_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    before = tmp_path / "metrics" / "1-1"  # the number that every container's first process has
    before.mkdir(parents=True)
    other = Metrics()
    other.count("labels_total", "analyst", by=5)
    (before / "7-7.json").write_text(json.dumps(other.snapshot()))
    found = parsed(WorkerMetrics(Metrics(), tmp_path).text())
    assert not [name for name, _ in found if name == "tollgate_labels_total"]
    assert not before.exists()


def test_a_snapshot_that_is_not_whole_is_nothing(tmp_path: Path, sibling: subprocess.Popen[bytes]) -> None:
    mine = Metrics()
    mine.count("labels_total", "analyst", by=2)
    workers = WorkerMetrics(mine, tmp_path)
    left_by(sibling.pid, tmp_path, mine)
    (path,) = (tmp_path / "metrics").glob("*/*.json")
    path.write_text('{"counters": {"lab')
    assert parsed(workers.text())["tollgate_labels_total", (("source", "analyst"),)] == 2


@pytest.mark.finding(
    "H2", "high", "a page of metrics, encoded at a stretch, kept decisions from the interpreter"
)
def test_a_page_gives_way_to_decisions_before_each_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("bentos.base.worker_metrics.time.sleep", pauses.append)
    families = WorkerMetrics(Metrics(), tmp_path).text().count(b"# TYPE")
    assert len(pauses) >= families > 20
    assert all(pause > 0 for pause in pauses)
