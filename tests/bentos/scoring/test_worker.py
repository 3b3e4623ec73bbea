"""Workers in this process: what they promise their callers and operators."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from bentos.models.model import Model
from embedded.redis_server import start_redis
from fraud.features.entities import ENTITIES
from stores.models import ModelError
from stores.settings import load_settings
from tests.bentos.one_worker import copied, logged, numbers, worker, worker_client
from tests.bentos.running import CALLER, store_features, transaction, transaction_json


def test_a_frozen_redis_costs_the_deadline_a_few_times_and_then_nothing(tmp_path: Path, store: Path) -> None:
    home = copied(store, tmp_path)
    server = start_redis(tmp_path / "redis")

    async def run() -> None:
        async with worker(home, server.url, feature_deadline_ms=250) as (engine, post):
            assert (await post(transaction_id="before")).json()["degraded"] == []
            os.kill(server.pid, signal.SIGSTOP)
            try:
                causes: Counter[str] = Counter()
                for n in range(8):
                    answer = (await post(transaction_id=f"frozen-{n}")).json()
                    assert set(answer["feature_status"].values()) == {"timeout"}
                    causes[answer["degraded"][0]] += 1
                assert causes["features:timeout"] == 3
                assert causes["features:breaker_open"] == 5
                assert engine.scorer.reader.breaker.state == "open"
            finally:
                os.kill(server.pid, signal.SIGCONT)
            until = time.monotonic() + 20
            while time.monotonic() < until:
                answer = (await post(transaction_id=f"after-{next(numbers)}")).json()
                if not answer["degraded"]:
                    break
                await asyncio.sleep(0.05)
            assert answer["degraded"] == []
            assert engine.scorer.reader.breaker.state == "closed"

    try:
        asyncio.run(run())
    finally:
        server.stop()


def test_profiles_of_another_programs_writing_are_read_value_by_value(
    tmp_path: Path, store: Path, url: str
) -> None:
    project = load_settings().feast.project
    client = redis.Redis.from_url(url)
    for name, together in (("ours", True), ("theirs", False)):
        store_features(client, project, transaction(customer_id=name), side_by_side=together)
    entities = len(ENTITIES)

    async def run() -> None:
        async with worker(copied(store, tmp_path), url) as (engine, post):
            again = engine.metrics.counters["profiles_read_again_total"]
            scores = []
            # Only the customer is theirs alone: the other keys still hold what ours wrote with the same timestamp.
            for name in ("ours", "theirs"):
                answer = (await post(transaction_id=f"by-{name}", customer_id=name)).json()
                assert set(answer["feature_status"].values()) == {"fresh"}
                assert answer["degraded"] == []
                scores.append(answer["fraud_score"])
            assert scores[0] == scores[1]
            assert again[()] == 1
            client.flushdb()
            store_features(client, project, transaction(), side_by_side=False)
            await post(transaction_id="all of theirs")
            assert again[()] == 1 + entities

    asyncio.run(run())


def test_models_change_under_load_without_a_dropped_request(tmp_path: Path, store: Path, url: str) -> None:
    home = copied(store, tmp_path)
    line_ups: list[dict[str, Any]] = [
        {"champion": "one", "challenger": "two", "share": 0.5},
        {"champion": "two"},  # promoted
        {"champion": "one"},  # rolled back
        {"champion": "broken"},
        {"champion": "three", "shadow": ["one"]},
    ]

    async def run() -> Counter[tuple[str, str]]:
        seen: Counter[tuple[str, str]] = Counter()
        async with worker(home, url) as (engine, post):
            done = asyncio.Event()

            async def caller(name: str) -> None:
                sent = 0
                while not done.is_set():
                    answer = await post(transaction_id=f"{name}-{sent}", customer_id=f"{name}-{sent}")
                    assert answer.status_code == 200
                    assert answer.json()["degraded"] == []
                    seen[answer.json()["variant"], answer.json()["model_version"]] += 1
                    sent += 1

            callers = [asyncio.create_task(caller(f"caller-{n}")) for n in range(8)]
            for line_up in line_ups:
                await asyncio.sleep(0.1)
                (home / "deployment.json").write_text(json.dumps(line_up))
                await engine.scorer.scores.room.refresh()
            await asyncio.sleep(0.1)
            done.set()
            await asyncio.gather(*callers)
        return seen

    seen = asyncio.run(run())
    assert set(seen) == {
        ("champion", "one"), ("challenger", "two"), ("champion", "two"), ("champion", "three"),
    }  # fmt: skip
    rows = logged(home)
    assert len(rows) == sum(seen.values())
    shadowed = [row for row in rows if row["shadow_scores"]]
    # A shadow's score is in the log beside the champion's, which is the one that decided.
    assert {row["model_version"] for row in shadowed} == {"three"}
    assert all(name == "one" for row in shadowed for name, _ in row["shadow_scores"])
    assert any(row["score"] != row["shadow_scores"][0][1] for row in shadowed)


def test_a_model_that_fails_leaves_the_rules_and_then_the_conservative_default(
    tmp_path: Path, store: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copied(store, tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text('rules:\n  - {name: cash, when: channel == "atm", action: block, reason: CASH}\n')

    def fail(self: Model, rows: np.ndarray) -> np.ndarray:
        raise ModelError("a test")

    async def run() -> None:
        async with worker(home, url, rules_file=rules) as (engine, post):
            monkeypatch.setattr(Model, "raw", fail)
            answers = [(await post(transaction_id=f"f{n}")).json() for n in range(7)]
            assert {(answer["decision"], answer["fraud_score"]) for answer in answers} == {("REVIEW", None)}
            assert [answer["degraded"] for answer in answers] == [["model:failed"]] * 5 + [
                ["model:breaker_open"]
            ] * 2
            blocked = (await post(transaction_id="atm", channel="atm")).json()
            assert (blocked["decision"], blocked["risk_factors"]) == ("BLOCK", ["rule cash: CASH"])
            monkeypatch.undo()
            until = time.monotonic() + 10
            while engine.scorer.scores.breaker.state != "closed" and time.monotonic() < until:
                await post(transaction_id=f"again-{next(numbers)}")
                await asyncio.sleep(0.02)
            assert (await post(transaction_id="well")).json()["degraded"] == []

    asyncio.run(run())


def test_a_rule_that_would_decline_everybody_asks_for_reviews_instead(
    tmp_path: Path, store: Path, url: str
) -> None:
    home = copied(store, tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {name: everybody, when: amount >= 0.0, action: block, reason: BAD}\n")

    async def run() -> tuple[list[str], dict[str, Any]]:
        async with worker(home, url, rules_file=rules) as (engine, post):
            items = [
                (json.dumps(transaction_json(transaction_id=f"r{n}", card_id=f"card-{n}")).encode(), CALLER)
                for n in range(512)
            ]
            decisions = [json.loads(item)["decision"] for item in await engine.score_many(items)]
            return decisions, (await post(transaction_id="later")).json()

    decisions, later = asyncio.run(run())
    assert decisions[0] == "BLOCK"
    assert decisions[-1] == "REVIEW"
    assert later["decision"] == "REVIEW"
    assert "rule_demoted:everybody" in later["degraded"]


def test_tokens_scopes_and_rates_hold_at_the_door(tmp_path: Path, store: Path, url: str) -> None:
    home = copied(store, tmp_path)
    tokens = tmp_path / "tokens.json"
    tokens.write_text(
        json.dumps(
            {
                "clients": [
                    {
                        "name": "checkout",
                        "sha256": [hashlib.sha256(b"till").hexdigest()],
                        "scopes": ["score"],
                        "rate": 3,
                    },
                    {"name": "desk", "sha256": [hashlib.sha256(b"desk").hexdigest()], "scopes": ["label"]},
                ]
            }
        )
    )

    async def run() -> None:
        async with worker(home, url, tokens_file=tokens) as (_, post):
            # At once, as a third of a second later another one is let in.
            answers = await asyncio.gather(
                *(post(transaction_id=f"t{number}", token="till") for number in range(40))
            )
            statuses = Counter(answer.status_code for answer in answers)
            assert statuses.keys() == {200, 429} and statuses[200] >= 3
            assert {each.headers["retry-after"] for each in answers if each.status_code == 429} == {"1"}
            for token, path, status in (
                (None, "/v1/score", 401), ("guess", "/v1/score", 401), ("desk", "/v1/score", 403),
                ("till", "/v1/labels", 403), ("desk", "/v1/explain", 403), ("till", "/v1/score/batch", 422),
            ):  # fmt: skip
                answer = await post(path, token=token)
                assert answer.status_code == status, path
                assert "guess" not in answer.text

    asyncio.run(run())


def test_operators_see_what_is_in_service_and_why_something_was_refused(
    tmp_path: Path, store: Path, url: str
) -> None:
    home = copied(store, tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {name: big, when: amount > 1.0, action: review, reason: BIG}\n")
    tokens = tmp_path / "tokens.json"
    clients = [
        {"name": name, "sha256": [hashlib.sha256(name.encode()).hexdigest()], "scopes": [scope]}
        for name, scope in (("root", "admin"), ("till", "score"))
    ]
    tokens.write_text(json.dumps({"clients": clients}))

    async def run() -> dict[str, Any]:
        async with worker_client(home, url, rules_file=rules, tokens_file=tokens) as (engine, client):
            rules.write_text("rules:\n  - {name: big, when: shoe > 1.0, action: review, reason: BIG}\n")
            (home / "deployment.json").write_text('{"champion": "nobody"}')
            await engine.scorer.tick()
            await engine.scorer.scores.room.looked()
            statuses = [
                (await client.get("/v1/status", headers={"authorization": f"Bearer {name}"})).status_code
                for name in ("till", "guess")
            ]
            assert statuses == [403, 401]
            answer = await client.get("/v1/status", headers={"authorization": "Bearer root"})
            return answer.json()

    found = asyncio.run(run())
    assert found["models"]["champion"] == "one"
    assert "nobody" in found["models"]["refused"]
    assert found["rules"]["names"] == ["big"]
    assert found["rules"]["refused"].startswith("line 2: rule big: shoe is neither")
    assert found["breakers"] == {"redis": "closed", "model": "closed"}


def test_a_full_queue_turns_callers_away_and_says_when_to_come_back(
    tmp_path: Path, store: Path, url: str
) -> None:
    home = copied(store, tmp_path)

    async def run() -> Counter[int]:
        async with worker(home, url, serve_queue=4, serve_batch=2) as (_, post):
            answers = await asyncio.gather(*(post(transaction_id=f"q{n}") for n in range(64)))
        for answer in answers:
            if answer.status_code == 503:
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["error"]["reason"] == "4 transactions wait already"
        return Counter(answer.status_code for answer in answers)

    statuses = asyncio.run(run())
    assert set(statuses) == {200, 503}
    assert len(logged(home)) == statuses[200]


def test_every_figure_that_operators_need_is_exported(tmp_path: Path, store: Path, url: str) -> None:
    home = copied(store, tmp_path)

    async def run() -> str:
        async with worker(home, url) as (engine, post):
            await post(transaction_id="counted")
            await engine.scorer.tick()
            return engine.metrics_text().decode()

    families = {family.name: family for family in text_string_to_metric_families(asyncio.run(run()))}
    stages = {sample.labels["stage"] for sample in families["tollgate_stage_seconds"].samples}
    assert {"parse", "features", "model", "rules", "total"} <= stages
    breakers = {sample.labels["breaker"] for sample in families["tollgate_breaker_state"].samples}
    assert breakers == {"redis", "model"}
    filled = {name for name, family in families.items() if family.samples}
    assert filled >= {
        f"tollgate_{name}"
        for name in ("in_flight", "batch_size", "decisions", "score", "feature_status", "log_held", "events_waiting",
                     "model_age_seconds", "requests", "rules_refused", "model_refused", "registry_refused")
    }  # fmt: skip
    assert {"tollgate_degraded", "tollgate_rule_hits", "tollgate_repeated"} <= families.keys()


async def _while_the_disk_refuses(store: Path, url: str, folder: Path) -> list[list[str]]:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with worker(copied(store, folder), url) as (_, post):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            during = [(await post(transaction_id=f"full-{number}")).json()["degraded"] for number in range(3)]
        after = []
        for number in range(20):  # the log tries the disk again with each batch
            after = (await post(transaction_id=f"room-{number}")).json()["degraded"]
        return [*during, after]


def test_answers_say_when_their_decisions_wait_in_memory_for_the_disk(
    store: Path, url: str, tmp_path: Path
) -> None:
    first, second, third, after = asyncio.run(_while_the_disk_refuses(store, url, tmp_path))
    mark = "decision_log:held_in_memory"
    assert mark not in first  # nothing waited yet when it was decided
    assert mark in second and mark in third
    assert mark not in after
