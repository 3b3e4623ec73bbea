"""Every metric that a dashboard or an alert names is one that somebody really exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

from jobs.schedule import exposition
from monitoring.dashboards.__main__ import FOLDER, main
from monitoring.dashboards.boards import BOARDS
from monitoring.drift.page import to_prometheus
from monitoring.drift.report import drift_report
from monitoring.gates.run import publish_state
from monitoring.gauges import folder
from monitoring.parity.comparison import ParityReport
from monitoring.parity.report import to_prometheus as parity_gauges
from stores.job_states import JobState
from stores.settings import REPOSITORY

METRIC = re.compile(r"\btollgate_[a-z0-9_]+")
RULES = REPOSITORY / "monitoring" / "alerts" / "rules.yaml"


def names(text: str) -> set[str]:
    """Sample names of a Prometheus text."""
    return {
        found.group()
        for line in text.splitlines()
        if not line.startswith("#") and (found := METRIC.match(line))
    }


@pytest.fixture
def exported(home: Path, make_decisions, tmp_path: Path) -> set[str]:  # type: ignore[no-untyped-def]
    """Everything that service, stream and runs export, as they export it."""
    import streaming.metrics  # noqa: F401  # registers the flow's metrics
    from bentos.base.metrics import COUNTERS, GAUGES, HISTOGRAMS

    service = {f"tollgate_{name}" for name in (*COUNTERS, *GAUGES)}
    for name in HISTOGRAMS:
        service |= {f"tollgate_{name}{suffix}" for suffix in ("_bucket", "_count", "_sum")}
    stream = set()
    for family in REGISTRY.collect():
        if family.name.startswith("tollgate_stream"):
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(
                family.type, ("",)
            )
            stream |= {family.name + suffix for suffix in suffixes}
    current = make_decisions(3_000, seed=1)
    report = drift_report(make_decisions(3_000), current, tmp_path / "out", labelled=current, evidently=False)
    publish_state("raw", False)
    texts = [
        to_prometheus(report),
        exposition({"profiles": JobState()}),
        parity_gauges(ParityReport(1, 1, 0, 0.0, None, {})),
        (folder() / "gate-raw.prom").read_text(),
    ]
    return service | stream | set().union(*map(names, texts))


def recorded() -> set[str]:
    content = yaml.safe_load(RULES.read_text())
    return {rule["record"] for group in content["groups"] for rule in group["rules"] if "record" in rule}


def test_every_query_names_metrics_that_are_exported(exported: set[str]) -> None:
    queries = [query for board in BOARDS for query in board.queries]
    content = yaml.safe_load(RULES.read_text())
    queries += [rule["expr"] for group in content["groups"] for rule in group["rules"]]
    for query in queries:
        assert set(METRIC.findall(query)) <= exported, f"{set(METRIC.findall(query)) - exported} in {query}"
        assert set(re.findall(r"tollgate:[a-z0-9:]+", query)) <= recorded(), query


def test_every_query_is_promql_that_prometheus_accepts(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: it is in Debian's prometheus package")
    queries = [query for board in BOARDS for query in board.queries]
    rules = [
        {"record": f"query:{place}", "expr": query.replace("$__rate_interval", "5m")}
        for place, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_are_what_the_code_says_and_panels_do_not_overlap(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    for board in BOARDS:
        written = (FOLDER / f"{board.uid}.json").read_text()
        assert written == (tmp_path / f"{board.uid}.json").read_text(), (
            "run `python -m monitoring.dashboards`"
        )
        taken: set[tuple[int, int]] = set()
        content = json.loads(written)
        assert len({panel["id"] for panel in content["panels"]}) == len(content["panels"])
        for panel in content["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= 24
            taken |= cells
