"""Live traffic with bursts, late and back-dated payments: what was served is what history rebuilds."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bentos.log.decision_files import convert_all
from embedded.platform import start_stream
from embedded.redis_server import start_redis
from fraud.features.feature_list import VECTOR
from monitoring.decisions import read_decisions
from monitoring.parity.comparison import ParityReport, compare
from stores.lake import parquet_history
from stores.settings import settings
from tests.bentos.running import save_model, start_service, transaction_json, wait_for
from tests.feature_repo.quick_spark import quick_spark

pytestmark = pytest.mark.slow
CARD_FEATURES = [
    name for name in VECTOR if name.startswith("card_") and "30d" not in name and "7d" not in name
]


@dataclass(frozen=True)
class Live:
    """What was served, and what a point-in-time join rebuilds of it."""

    served: pa.Table
    rebuilt: pa.Table
    report: ParityReport


def traffic() -> list[list[dict[str, Any]]]:
    """Bulk calls: shoppers of their own, with bursts on a few cards among them."""
    rng = random.Random(5)
    now = datetime.now(UTC)
    bodies: list[dict[str, Any]] = []
    for number in range(240):
        person = rng.randrange(60)
        # Some terminals deliver late, some clocks run ahead, one is hours off.
        stated = now - timedelta(
            seconds=rng.choice([0, 0, 0, 3, 90, 600, -2, 40_000]), milliseconds=rng.randrange(900)
        )
        bodies.append(body(f"p{number}", f"{person}", stated, rng))
    for burst, step in enumerate((0.0, -360.0, 0.2)):
        for number in range(30):
            stated = now + timedelta(seconds=step * number)
            bodies.append(body(f"b{burst}-{number}", f"burst-{burst}", stated, rng))
    rng.shuffle(bodies)
    return [bodies[at : at + 30] for at in range(0, len(bodies), 30)]


def body(name: str, person: str, stated: datetime, rng: random.Random) -> dict[str, Any]:
    return transaction_json(
        transaction_id=name, customer_id=f"customer-{person}", card_id=f"card-{person}",
        device_id=f"device-{person}", merchant_id=f"merchant-{rng.randrange(8)}",
        terminal_id=f"terminal-{rng.randrange(20)}", ip=None, amount=f"{rng.randrange(100, 9_000) / 100:.2f}",
        event_time=stated.isoformat(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    home = folder / "home"
    server = start_redis(folder / "redis")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLGATE_HOME", str(home))
        patch.setenv("TOLLGATE_RESULTS", str(folder / "results"))
        patch.setenv("TOLLGATE_REDIS_URL", server.url)
        settings.cache_clear()
        save_model(home, "first")
        stream = start_stream(settings())
        service = start_service(
            home, server.url, TOLLGATE_SERVE_WORKERS="2", TOLLGATE_SERVE_REPLAY="false",
            TOLLGATE_FEATURE_DEADLINE_MS="1000",
        )  # fmt: skip
        try:
            calls = traffic()
            with ThreadPoolExecutor(4) as pool:
                for answers in pool.map(lambda call: send(service.url, call), calls):
                    assert all("decision" in answer for answer in answers), answers
            number = sum(map(len, calls))
            assert wait_for(lambda: sum(parquet_history(settings().lake).values()) >= number)
        finally:
            service.stop()
            stream.stop()
        convert_all(home)
        yield rebuilt(folder)
        server.stop()
    settings.cache_clear()


def send(url: str, call: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Half of a call in bulk, half one by one, on a connection of its own."""
    with httpx.Client(base_url=url, timeout=60) as client:
        answers: list[dict[str, Any]] = client.post("/v1/score/batch", json=call[::2]).json()
        return answers + [client.post("/v1/score", json=one).json() for one in call[1::2]]


def rebuilt(folder: Path) -> Live:
    from feature_repo.store import apply_definitions
    from feature_repo.velocity_log import build_velocity_log
    from training.dataset import rebuild

    apply_definitions()
    spark = quick_spark(settings().home)
    os.environ["TZ"] = "UTC"
    time.tzset()
    now = datetime.now(UTC)
    build_velocity_log(now - timedelta(days=1), now + timedelta(days=1), spark)
    served = read_decisions(settings().home / "decisions")
    found = rebuild(served, spark)
    spark.stop()
    return Live(served, found, compare(served, found, VECTOR))


def test_every_difference_has_a_cause(live: Live) -> None:
    assert live.report.rows == live.served.num_rows == 330
    assert "unexplained" not in live.report.causes, live.report.examples
    assert live.report.unmatched == 0


def test_bursts_were_served_as_they_are_rebuilt(live: Live) -> None:
    burst = pc.match_substring(live.served["card_id"], "burst")
    served = live.served.filter(burst)
    report = compare(served, live.rebuilt, CARD_FEATURES, arrivals=live.served)
    assert (report.rows, report.mismatched_rows) == (90, 0), report.examples
    counts = served.filter(pc.equal(served["card_id"], "card-burst-1"))["card_txn_count_5m"].to_pylist()
    assert len(counts) == 30
    # The first one met a card that nobody knew: its count is no number.
    known = sorted(count for count in counts if count is not None and not math.isnan(count))
    assert known == list(range(1, 30)), "each saw all those before it"


def test_both_times_are_kept(live: Live) -> None:
    late = pc.list_value_length(live.served["degraded"])
    assert pc.sum(late).as_py() > 0
    moved = live.served.filter(pc.greater(live.served["lateness_ms"], 0))
    assert moved.num_rows > 20, "payments that were stated backwards count in the order in which they came"
