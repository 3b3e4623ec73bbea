"""Every alert fires, stays silent and resolves; Alertmanager delivers it for real.

Each case draws its series over three stretches of minutes:

    0 ....... quiet ....... | ....... bad ....... | ....... quiet again .......
                     silent ^              firing ^                   resolved ^
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from embedded.redis_server import free_port
from monitoring.alerts.__main__ import DOCUMENT, with_table
from stores.settings import REPOSITORY

ALERTS = REPOSITORY / "monitoring" / "alerts"


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(
            f"{name} is not installed: it is in Debian's prometheus and prometheus-alertmanager packages"
        )
    return found


@dataclass(frozen=True)
class Gauge:
    quiet: float
    bad: float

    def values(self, quiet: int, bad: int, after: int, _: int) -> str:
        return f"{self.quiet}x{quiet - 1} {self.bad}x{bad - 1} {self.quiet}x{after - 1}"


@dataclass(frozen=True)
class Counter:
    """A counter that grows by `quiet` a step, and by `bad` in the middle."""

    quiet: float
    bad: float

    def values(self, quiet: int, bad: int, after: int, _: int) -> str:
        parts, value = [], 0.0
        for rate, steps in ((self.quiet, quiet), (self.bad, bad), (self.quiet, after)):
            parts.append(f"{value}+{rate}x{steps - 1}")
            value += rate * steps
        return " ".join(parts)


@dataclass(frozen=True)
class LastSuccess:
    """The time of a run that succeeds at every step, except in the middle."""

    def values(self, quiet: int, bad: int, after: int, step: int) -> str:
        again = (quiet + bad) * step
        return f"0+{step}x{quiet - 1} {quiet * step}x{bad - 1} {again}+{step}x{after - 1}"


@dataclass(frozen=True)
class Case:
    alert: str
    series: dict[str, Gauge | Counter | LastSuccess]
    quiet: int = 90
    bad: int = 30
    after: int = 90
    step_minutes: int = 1
    labels: dict[str, str] = field(default_factory=dict)


REQUESTS = 'tollgate_requests_total{route="/v1/score",status="%s"}'
DECISIONS = 'tollgate_decisions_total{decision="%s",variant="champion"}'
CASES = [
    Case("ServiceDown", {'up{job="tollgate-service"}': Gauge(1, 0)}),
    Case("ErrorBudgetBurnsFast", {REQUESTS % 200: Counter(6000, 6000), REQUESTS % 503: Counter(0, 300)}),
    Case("ErrorBudgetBurnsSlowly", {REQUESTS % 200: Counter(60000, 60000), REQUESTS % 503: Counter(0, 60)}, 400, 300, 500),
    Case(
        "LatencyHigh",
        {
            'tollgate_stage_seconds_bucket{stage="total",le="0.03"}': Counter(1000, 900),
            'tollgate_stage_seconds_bucket{stage="total",le="0.1"}': Counter(1000, 1000),
            'tollgate_stage_seconds_bucket{stage="total",le="+Inf"}': Counter(1000, 1000),
        },
    ),
    Case("TrafficStopped", {DECISIONS % "APPROVE": Counter(600, 0)}),
    Case("BreakerOpen", {'tollgate_breaker_state{breaker="redis"}': Gauge(0, 2)}),
    Case("AnswersDegraded", {DECISIONS % "APPROVE": Counter(600, 600), 'tollgate_degraded_total{cause="features"}': Counter(1, 30)}),
    Case("DecisionLogHeld", {"tollgate_log_held": Gauge(0, 12)}),
    Case("EventsWaiting", {"tollgate_events_waiting": Gauge(3, 5000)}),
    Case("TokensRefused", {"tollgate_tokens_refused": Gauge(0, 1)}),
    Case("ModelRefused", {"tollgate_model_refused": Gauge(0, 1)}),
    Case("RulesRefused", {"tollgate_rules_refused": Gauge(0, 1), "tollgate_rules_demoted": Gauge(0, 0)}),
    Case("RulesRefused", {"tollgate_rules_refused": Gauge(0, 0), "tollgate_rules_demoted": Gauge(0, 1)}),
    Case("UnverifiedValue", {'tollgate_unverified_total{what="answer"}': Counter(0, 0.1)}, labels={"what": "answer"}),
    Case("HeadsOverdue", {"tollgate_log_heads_late_seconds": Gauge(0, 900)}),
    Case("KeysRefused", {"tollgate_keys_refused": Gauge(0, 1)}),
    Case(
        "FeaturesMissing",
        {
            'tollgate_feature_status_total{view="card_profile",status="fresh"}': Counter(600, 300),
            'tollgate_feature_status_total{view="card_profile",status="stale"}': Counter(1, 300),
        },
    ),
    Case("StreamDown", {'up{job="tollgate-stream"}': Gauge(1, 0)}),
    Case(
        "StoreEmpty",
        {
            'tollgate_feature_status_total{view="merchant_velocity",status="missing"}': Counter(1, 90),
            'tollgate_feature_status_total{view="merchant_velocity",status="fresh"}': Counter(90, 1),
        },
    ),
    Case("PartitionsUnread", {"tollgate_stream_unread_partitions": Gauge(0, 2)}),
    Case("EventsMisplaced", {'tollgate_stream_misplaced_total{partition="0"}': Counter(0, 5)}),
    Case("StreamLagging", {'tollgate_stream_lag_seconds{partition="0"}': Gauge(0.2, 90)}),
    Case(
        "FreshnessSlow",
        {
            'tollgate_stream_freshness_seconds_bucket{le="1"}': Counter(1000, 900),
            'tollgate_stream_freshness_seconds_bucket{le="5"}': Counter(1000, 1000),
            'tollgate_stream_freshness_seconds_bucket{le="+Inf"}': Counter(1000, 1000),
        },
    ),
    Case("DeadLetters", {'tollgate_stream_dead_letters_total{partition="0"}': Counter(0, 2)}),
    Case("BlockRateJumped", {DECISIONS % "APPROVE": Counter(1000, 1000), DECISIONS % "BLOCK": Counter(5, 60)}, 1600, 60, 120),
    Case("NothingStopped", {DECISIONS % "APPROVE": Counter(1000, 1000), DECISIONS % "REVIEW": Counter(5, 0)}, 120, 90, 120),
    Case("ProfilesOverdue", {'tollgate_job_last_success_timestamp_seconds{job_name="profiles"}': LastSuccess()}, 90, 100, 30, 5),
    Case("ProfilesGoStale", {'tollgate_job_last_success_timestamp_seconds{job_name="profiles"}': LastSuccess()}, 20, 500, 30, 5),
    Case("DriftReportOverdue", {'tollgate_job_last_success_timestamp_seconds{job_name="drift"}': LastSuccess()}, 20, 2400, 30, 5),
    Case("JobFailing", {'tollgate_job_failures_total{job_name="profiles"}': Counter(0, 0.1)}, 90, 60, 400),
    Case("GateBlocked", {'tollgate_gate_blocked{gate="raw"}': Gauge(0, 1)}),
    Case("DriftAsksForAction", {"tollgate_drift_action": Gauge(1, 3)}),
    Case("ParityBroken", {"tollgate_parity_mismatched_share": Gauge(0, 0.01), "tollgate_parity_unexplained_rows": Gauge(0, 0)}),
    Case("ParityBroken", {"tollgate_parity_mismatched_share": Gauge(0, 0), "tollgate_parity_unexplained_rows": Gauge(0, 3)}),
]  # fmt: skip


def rules() -> list[dict[str, object]]:
    content = yaml.safe_load((ALERTS / "rules.yaml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"] if "alert" in rule]


def test_every_alert_has_a_case_an_owner_and_an_action() -> None:
    assert {case.alert for case in CASES} == {str(rule["alert"]) for rule in rules()}
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule  # type: ignore[index]
        assert rule["labels"]["owner"] in ("operator", "data", "model"), rule  # type: ignore[index]
        assert set(rule["annotations"]) == {"summary", "action"}, rule  # type: ignore[call-overload]


def test_the_document_lists_the_rules_as_they_are() -> None:
    text = DOCUMENT.read_text()
    assert text == with_table(text), "run `python -m monitoring.alerts`"


@pytest.mark.parametrize("step", sorted({case.step_minutes for case in CASES}))
def test_each_alert_stays_silent_fires_and_resolves(step: int, tmp_path: Path) -> None:
    shutil.copy(ALERTS / "rules.yaml", tmp_path)
    groups = []
    for case in (case for case in CASES if case.step_minutes == step):
        series = [
            {"series": name, "values": shape.values(case.quiet, case.bad, case.after, step * 60)}
            for name, shape in case.series.items()
        ]
        ends = (case.quiet - 1, case.quiet + case.bad - 1, case.quiet + case.bad + case.after - 1)
        expression = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}}) or vector(0)'
        tests = [
            {
                "expr": expression,
                "eval_time": f"{end * step}m",
                "exp_samples": [{"labels": "{}", "value": value}],
            }
            for end, value in zip(ends, (0, 1, 0), strict=True)
        ]
        groups.append(
            {"interval": f"{step}m", "name": case.alert, "input_series": series, "promql_expr_test": tests}
        )
    file = tmp_path / "rules_test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": f"{step}m", "tests": groups})
    )
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_configurations_are_what_prometheus_and_alertmanager_accept() -> None:
    for command in (
        [tool("promtool"), "check", "rules", "rules.yaml"],
        [tool("promtool"), "check", "config", "prometheus.yaml"],
        [tool("amtool"), "check-config", "alertmanager.yaml"],
    ):
        done = subprocess.run(command, cwd=ALERTS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"severity": "page", "owner": "operator"}, "pages"),
        ({"severity": "page", "owner": "model"}, "pages"),
        ({"severity": "ticket", "owner": "model"}, "model-owners"),
        ({"severity": "ticket", "owner": "data"}, "tickets"),
    ],
)
def test_each_severity_and_owner_has_its_route(labels: dict[str, str], receiver: str) -> None:
    named = [f"{name}={value}" for name, value in labels.items()]
    command = [
        tool("amtool"),
        "config",
        "routes",
        "test",
        "--config.file",
        str(ALERTS / "alertmanager.yaml"),
        *named,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == receiver


@dataclass
class Webhook:
    port: int
    received: list[tuple[str, dict[str, object]]]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    received: list[tuple[str, dict[str, object]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Webhook(server.server_port, received)
    server.shutdown()
    server.server_close()


def test_a_page_is_delivered_to_the_webhook_and_what_follows_from_it_is_held_back(
    webhook: Webhook, tmp_path: Path
) -> None:
    config = (ALERTS / "alertmanager.yaml").read_text().replace("127.0.0.1:9400", f"127.0.0.1:{webhook.port}")
    (tmp_path / "alertmanager.yaml").write_text(config.replace("group_wait: 10s", "group_wait: 1s"))
    port = free_port()
    process = subprocess.Popen(
        [
            tool("prometheus-alertmanager"), f"--config.file={tmp_path / 'alertmanager.yaml'}", f"--storage.path={tmp_path}",
            f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}"
        until(lambda: urllib.request.urlopen(f"{base}/-/ready", timeout=1).status == 200)
        labels = {"owner": "operator", "severity": "page"}
        alerts = [
            {"labels": {"alertname": name, **labels}, "annotations": {"summary": name, "action": "look"}}
            for name in ("ServiceDown", "TrafficStopped")
        ]
        request = urllib.request.Request(
            f"{base}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}
        )
        assert urllib.request.urlopen(request, timeout=5).status == 200
        until(lambda: bool(webhook.received))
    finally:
        process.terminate()
        process.wait(10)
    path, content = webhook.received[0]
    assert path == "/pages"
    names = {alert["labels"]["alertname"] for alert in content["alerts"]}  # type: ignore[attr-defined]
    assert names == {"ServiceDown"}


def until(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():  # type: ignore[operator]
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("did not happen in time")
