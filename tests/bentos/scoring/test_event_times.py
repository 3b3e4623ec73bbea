"""Which time of a transaction counts at the door, and what is kept of both."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis
from prometheus_client.parser import text_string_to_metric_families

from bentos.base.caller import Caller
from fraud.contract.event import EventTimes, parse_event
from tests.bentos.one_worker import copied, logged, worker
from tests.bentos.running import transaction_json

HOUR = timedelta(hours=1)


def at(ago: timedelta) -> str:
    """The time so long ago, as clients write it."""
    return (datetime.now(UTC) - ago).isoformat()


def microseconds(text: str) -> int:
    return (
        (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) * 1000
    )


def published(url: str) -> list[tuple[int, EventTimes]]:
    """Per event of the log when it counts, in microseconds, and what the service says of its times."""
    found = []
    for _, fields in redis.Redis.from_url(url).xrange("tollgate:worker:0"):
        _, event_ms, _, _, times = parse_event(fields[b"v"])
        assert times is not None
        found.append((event_ms * 1000, times))
    return found


def somebody(name: str) -> dict[str, str]:
    """A transaction of somebody who has nothing to do with others."""
    return {"transaction_id": name, "customer_id": f"customer-{name}", "card_id": f"card-{name}"}


def decided(home: Path, url: str, *stated: str, prefix: str = "t", **settings: Any) -> list[dict[str, Any]]:
    """The answers to payments of these times, one after the other."""

    async def run() -> list[dict[str, Any]]:
        async with worker(home, url, **({"serve_replay": False} | settings)) as (_, post):
            return [
                (await post(**somebody(f"{prefix}{place}"), event_time=time)).json()
                for place, time in enumerate(stated)
            ]

    return asyncio.run(run())


def test_a_clock_that_is_off_gets_a_decision_at_the_time_of_receipt_that_says_so(
    tmp_path: Path, store: Path, url: str
) -> None:
    home = copied(store, tmp_path)
    stated = [at(-2 * HOUR), "2001-05-31T00:00:00Z", at(timedelta(seconds=2)), at(-timedelta(minutes=1))]
    answers = decided(home, url, *stated)
    remarks = [[word for word in answer["degraded"] if word.endswith("_event")] for answer in answers]
    assert remarks == [["early_event"], ["late_event"], [], []]
    rows, events = logged(home), published(url)
    for place, (row, (counts_us, times)) in enumerate(zip(rows, events, strict=True)):
        assert row["stated_timestamp"] == microseconds(stated[place]), "what the caller wrote is kept"
        assert abs(row["created_timestamp"] - row["decided_at"]) < 60_000_000
        assert (row["replayed"], row["lateness_ms"]) == (False, 0)
        assert counts_us == row["event_timestamp"]
        assert times.known_us == row["created_timestamp"]
        if place == 2:  # a payment of two seconds ago counts at its own time
            assert (row["event_timestamp"], times.stated_ms) == (row["stated_timestamp"], None)
        else:
            assert 0 <= row["created_timestamp"] - row["event_timestamp"] < 60_000_000
            assert times.stated_ms == row["stated_timestamp"] // 1000


def test_how_late_an_event_may_be_and_what_becomes_of_others_are_settings(
    tmp_path: Path, store: Path, url: str
) -> None:
    home = copied(store, tmp_path)
    (answer,) = decided(home, url, at(timedelta(seconds=5)), serve_late_seconds=2)
    assert "late_event" in answer["degraded"]
    strict = {"serve_off_clock": "refuse", "prefix": "strict"}
    refused = decided(home, url, at(-HOUR), at(HOUR), "2001-05-31T00:00:00Z", **strict)
    assert [answer["error"]["field"] for answer in refused] == ["event_time"] * 3
    assert refused[1]["error"]["reason"] == "is more than 15 minutes old; backfills need the scope replay"
    (answer,) = decided(home, url, at(timedelta(minutes=14)), **strict)
    assert answer["degraded"] == []


def test_a_client_with_the_scope_replay_states_times_of_the_past(
    tmp_path: Path, store: Path, url: str
) -> None:
    home, tokens = copied(store, tmp_path), tmp_path / "tokens.json"
    clients = [
        {"name": name, "sha256": [hashlib.sha256(name.encode()).hexdigest()], "scopes": scopes}
        for name, scopes in (("till", ["score"]), ("backfill", ["score", "replay"]))
    ]
    tokens.write_text(json.dumps({"clients": clients}))
    past = "2018-08-01T12:00:00Z"

    async def run() -> list[dict[str, Any]]:
        # The setting is for local callers: where there are tokens, they say who replays.
        async with worker(home, url, tokens_file=tokens, serve_replay=True) as (_, post):
            return [
                (await post(transaction_id=token, event_time=past, token=token)).json()
                for token in ("till", "backfill")
            ]

    live, replayed = asyncio.run(run())
    assert ("late_event" in live["degraded"], "late_event" in replayed["degraded"]) == (True, False)
    rows = {row["client"]: row for row in logged(home)}
    assert (rows["till"]["replayed"], rows["backfill"]["replayed"]) == (False, True)
    assert rows["backfill"]["event_timestamp"] == rows["backfill"]["created_timestamp"] == microseconds(past)


def test_a_replay_does_not_reach_the_future(tmp_path: Path, store: Path, url: str) -> None:
    (answer,) = decided(copied(store, tmp_path), url, at(-HOUR), serve_replay=True)
    assert answer["error"]["reason"] == "is more than 5 minutes in the future"


def test_how_far_clocks_are_off_is_a_metric_by_client(tmp_path: Path, store: Path, url: str) -> None:
    async def run() -> str:
        async with worker(copied(store, tmp_path), url, serve_replay=False) as (engine, post):
            await post(**somebody("late"), event_time=at(2 * HOUR))
            await post(**somebody("early"), event_time=at(-2 * HOUR))
            return engine.metrics_text().decode()

    families = text_string_to_metric_families(asyncio.run(run()))
    counts = {
        sample.labels["le"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "tollgate_event_lateness_seconds_bucket" and sample.labels["client"] == "loopback"
    }
    assert [count for bound, count in counts.items() if float(bound) == -300] == [1]
    assert [count for bound, count in counts.items() if float(bound) == 3600] == [1]
    assert counts["+Inf"] == 2


def test_rules_know_how_late_an_event_is(tmp_path: Path, store: Path, url: str) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n"
        "  - {name: kept_back, when: lateness_seconds > 60.0, action: review, reason: LATE}\n"
        "  - {name: ahead, when: lateness_seconds < -60.0, action: review, reason: EARLY}\n"
    )
    times = [at(timedelta(minutes=2)), at(timedelta(seconds=1)), at(-timedelta(minutes=2))]
    answers = decided(copied(store, tmp_path), url, *times, rules_file=rules)
    assert [answer["rules"] for answer in answers] == [["kept_back"], [], ["ahead"]]


def test_decisions_of_one_worker_are_known_one_after_the_other(tmp_path: Path, store: Path, url: str) -> None:
    home = copied(store, tmp_path)

    async def run() -> None:
        async with worker(home, url, serve_replay=False) as (engine, _):
            now = at(timedelta(0))
            bodies = [transaction_json(transaction_id=f"t{number}", event_time=now) for number in range(300)]
            items = [(json.dumps(body).encode(), Caller("till")) for body in bodies]
            assert all(b"decision" in answer for answer in await engine.score_many(items))

    asyncio.run(run())
    known = [row["created_timestamp"] for row in logged(home)]
    assert known == sorted(set(known)) and len(known) == 300


def test_a_late_request_that_is_repeated_gets_the_same_answer(tmp_path: Path, store: Path, url: str) -> None:
    stated = at(20 * HOUR)

    async def run() -> list[bytes]:
        async with worker(copied(store, tmp_path), url, serve_replay=False) as (_, post):
            return [(await post(transaction_id="once", event_time=stated)).content for _ in range(2)]

    first, second = asyncio.run(run())
    assert first == second
