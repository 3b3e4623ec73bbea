"""What a caller can do with the event times that it states (H5), and with many payments at once (M4).

`card_testing` blocks the ninth small payment of a card within five minutes. Nothing streams here: what
these payments know of each other they know from the workers alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from bentos.log.decision_files import convert_all
from bentos.log.decision_log import DecisionLog
from embedded.redis_server import start_redis
from tests.bentos.log.test_decision_log import SEAL, row
from tests.bentos.running import Service, save_model, start_service, transaction_json

h5 = pytest.mark.finding("H5", "high", "payments that state times backwards, or one time, never met a window")
m4 = pytest.mark.finding("M4", "medium", "200 payments on one card in one bulk call: 200 approved")
cards = count()
MINUTES, HOURS = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers for callers who are no replay, and their Redis, as `redis`."""
    folder = tmp_path_factory.mktemp("times")
    server = start_redis(folder / "redis")
    home = folder / "home"
    save_model(home, "first", review=0.98, block=0.99)
    running = start_service(
        home, server.url, TOLLGATE_SERVE_WORKERS="2", TOLLGATE_SERVE_REPLAY="false",
        TOLLGATE_FEATURE_DEADLINE_MS="1000",
    )  # fmt: skip
    yield running
    running.stop()
    server.stop()


def small_payments(number: int, *times: datetime) -> list[dict[str, Any]]:
    """As many payments of 2.00 on a card of their own; the last of `times` is that of all further ones."""
    card = f"tested-{next(cards)}"
    return [
        transaction_json(
            transaction_id=f"{card}-{place}", card_id=card, customer_id=f"{card}-holder", device_id=None,
            amount="2.00", channel="ecom", event_time=times[min(place, len(times) - 1)].isoformat(),
            merchant_id=f"shop-{place}", latitude=None, longitude=None,
        )
        for place in range(number)
    ]  # fmt: skip


def stepping(step: timedelta, number: int = 16) -> list[datetime]:
    now = datetime.now(UTC)
    return [now + place * step for place in range(number)]


CASES = {
    "honest": lambda: stepping(timedelta(milliseconds=1)),
    "one_millisecond": lambda: [datetime.now(UTC)],
    "one_millisecond_two_days_ago": lambda: [datetime.now(UTC) - 48 * HOURS],
    "each_6_minutes_older": lambda: stepping(-6 * MINUTES),
    "each_25_hours_older": lambda: stepping(-25 * HOURS),
    "now_and_then_all_14_minutes_ago": lambda: [datetime.now(UTC), datetime.now(UTC) - 14 * MINUTES],
    "an_hour_ahead": lambda: [datetime.now(UTC) + HOURS],
}


@h5
@m4
@pytest.mark.parametrize("case", CASES)
def test_a_burst_meets_its_rule_at_the_ninth_payment_whatever_times_it_states(
    service: Service, case: str
) -> None:
    with httpx.Client(base_url=service.url, timeout=20) as client:
        answers = [client.post("/v1/score", json=body).json() for body in small_payments(16, *CASES[case]())]
    hits = ["card_testing" in answer["rules"] for answer in answers]
    assert hits == [False] * 8 + [True] * 8
    assert [answer["decision"] for answer in answers[8:]] == ["BLOCK"] * 8


@h5
@m4
@pytest.mark.parametrize("case", CASES)
def test_a_burst_in_one_bulk_call_meets_its_rule_at_the_ninth(service: Service, case: str) -> None:
    bodies = small_payments(200, *CASES[case]())
    answers = httpx.post(service.url + "/v1/score/batch", json=bodies, timeout=30).json()
    hits = ["card_testing" in answer["rules"] for answer in answers]
    assert hits == [False] * 8 + [True] * 192
    # While a rule would decline more than a fifth of all payments it asks for reviews.
    assert {answer["decision"] for answer in answers[8:]} <= {"BLOCK", "REVIEW"}


@m4
def test_a_burst_over_parallel_requests_to_two_workers_meets_its_rule_at_the_ninth(service: Service) -> None:
    bodies = small_payments(64, datetime.now(UTC))
    clients = [httpx.Client(base_url=service.url, timeout=20) for _ in range(16)]

    def send(place: int) -> dict[str, Any]:
        answer: dict[str, Any] = clients[place % 16].post("/v1/score", json=bodies[place]).json()
        return answer

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(64)))
    workers = {client.get("/v1/status").json()["worker"] for client in clients}
    for client in clients:
        client.close()
    assert len(workers) == 2
    assert sum("card_testing" not in answer["rules"] for answer in answers) == 8


@m4
def test_a_burst_while_redis_is_away_meets_its_rule_in_each_worker(tmp_path: Path) -> None:
    server = start_redis(tmp_path / "redis")
    home = tmp_path / "home"
    save_model(home, "first", review=0.98, block=0.99)
    running = start_service(home, server.url, TOLLGATE_SERVE_REPLAY="false")
    server.stop()
    try:
        bodies = small_payments(16, datetime.now(UTC))
        answers = httpx.post(running.url + "/v1/score/batch", json=bodies, timeout=30).json()
    finally:
        running.stop()
    assert ["card_testing" in answer["rules"] for answer in answers] == [False] * 8 + [True] * 8


def test_honest_late_payments_are_counted_and_not_suspected(service: Service) -> None:
    #  a terminal sends what it kept for ten minutes, one payment a minute, after a payment of now
    now = datetime.now(UTC)
    bodies = small_payments(8, now, *[now - (10 - place) * MINUTES for place in range(7)])
    with httpx.Client(base_url=service.url, timeout=20) as client:
        answers = [client.post("/v1/score", json=body).json() for body in bodies]
    assert [answer["rules"] for answer in answers] == [[]] * 8
    assert not any("late_event" in answer["degraded"] for answer in answers)


@h5
def test_event_times_of_many_years_make_one_file_of_decisions(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, SEAL)
    first = datetime(2001, 5, 31, tzinfo=UTC)
    times = [first + timedelta(days=47 * number, hours=number) for number in range(190)]
    log.append([row(f"t{place}", event_time=time.isoformat()) for place, time in enumerate(times)])
    log.close()
    assert convert_all(tmp_path) == 190
    assert len(list((tmp_path / "decisions").rglob("*.parquet"))) == 1


@h5
def test_a_bulk_of_many_years_counts_in_one_hour(service: Service) -> None:
    times = [datetime(2001, 5, 31, tzinfo=UTC) + timedelta(days=47 * place) for place in range(190)]
    bodies = small_payments(190, *times)
    answers = httpx.post(service.url + "/v1/score/batch", json=bodies, timeout=30).json()
    assert all("late_event" in answer["degraded"] for answer in answers)
    events = service.redis.xrange("tollgate:transactions:0") + service.redis.xrange("tollgate:transactions:1")
    found = [json.loads(fields[b"v"]) for _, fields in events]
    mine = [event for event in found if event["card_id"] == bodies[0]["card_id"]]
    assert len(mine) == 190
    assert len({event["event_time"][:13] for event in mine}) <= 2
    assert {event["stated_ms"] for event in mine} == {int(time.timestamp()) * 1000 for time in times}
