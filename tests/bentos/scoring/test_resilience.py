"""The running service while Redis, rules, models and its own process break."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bentos.log.decision_files import convert_all
from bentos.tools.audit import audit
from embedded.redis_server import RedisServer, start_redis
from fraud.features.entities import ENTITIES
from stores.keys import open_keys
from stores.redis_layout import encode_bytes, entity_key, field
from stores.settings import load_settings
from tests.bentos.running import (
    Service,
    save_model,
    start_service,
    store_features,
    transaction,
    transaction_json,
    wait_for,
)

PROJECT = "tollgate"


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """A Redis that the tests may kill; the list holds the one that runs now."""
    servers = [start_redis(tmp_path_factory.mktemp("own-redis"))]
    yield servers
    servers[-1].stop()


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, own_redis: list[RedisServer]) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("fragile") / "home"
    save_model(home, "first")
    save_model(home, "second", seed=5)
    (home / "deployment.json").write_text(json.dumps({"champion": "first"}))
    rules = home / "rules.yaml"
    rules.write_text("rules: []\n")
    service = start_service(home, own_redis[0].url, TOLLGATE_RULES_FILE=str(rules))
    store_features(service.redis, PROJECT, transaction())
    yield service
    service.stop()


def score(service: Service, name: str, **changes: Any) -> dict[str, Any]:
    response = httpx.post(
        service.url + "/v1/score", json=transaction_json(transaction_id=name, **changes), timeout=10
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def workers(service: Service) -> list[psutil.Process]:
    children = psutil.Process(service.process.pid).children()
    return [child for child in children if "_bentoml_impl.worker.service" in " ".join(child.cmdline())]


def test_an_unreadable_state_fails_nobody(fragile: Service) -> None:
    bad = transaction(customer_id="broken-state")
    store_features(fragile.redis, PROJECT, bad)
    customer = ENTITIES[0]
    key = entity_key(PROJECT, customer.key, "broken-state")
    fragile.redis.hset(
        key, field(customer.velocity_view, customer.state_feature), encode_bytes(b"\x07" * 333)
    )
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda n: score(
                    fragile, f"state-{n}", customer_id="broken-state" if n == 3 else "customer-1"
                ),
                range(8),
            )
        )
    assert len({answer["transaction_id"] for answer in answers}) == 8
    assert all(answer["fraud_score"] is not None for answer in answers)


def test_a_rule_file_takes_effect_and_a_broken_one_does_not(fragile: Service) -> None:
    path = fragile.home / "rules.yaml"
    path.write_text('rules:\n  - {name: cash, when: channel == "atm", action: review, reason: CASH}\n')
    numbers = iter(range(1000))
    assert wait_for(lambda: score(fragile, f"rule-{next(numbers)}", channel="atm")["rules"] == ["cash"])
    path.write_text("rules: [")
    assert wait_for(lambda: "tollgate_rules_refused 1" in httpx.get(fragile.url + "/metrics").text)
    assert score(fragile, "still", channel="atm")["decision"] == "REVIEW"


def test_models_are_swapped_shadowed_and_never_by_a_broken_one(fragile: Service) -> None:
    path = fragile.home / "deployment.json"
    numbers = iter(range(1000))
    path.write_text(json.dumps({"champion": "second", "shadow": ["first"]}))
    assert wait_for(lambda: score(fragile, f"swap-{next(numbers)}")["model_version"] == "second")
    path.write_text(json.dumps({"champion": "no-such-model"}))
    assert wait_for(lambda: "tollgate_model_refused 1" in httpx.get(fragile.url + "/metrics").text)
    assert score(fragile, "after-refusal")["model_version"] == "second"
    path.write_text(json.dumps({"champion": "first", "challenger": "second", "share": 0.5}))
    seen = set()

    def both_decide() -> bool:
        number = next(numbers)
        answer = score(fragile, f"split-{number}", customer_id=f"customer-{number}")
        seen.add((answer["variant"], answer["model_version"]))
        return {("champion", "first"), ("challenger", "second")} <= seen

    assert wait_for(both_decide)
    sticky = {score(fragile, f"sticky-{n}", customer_id="one-customer")["variant"] for n in range(6)}
    assert len(sticky) == 1


def test_without_redis_every_request_is_decided_and_remembered(
    fragile: Service, own_redis: list[RedisServer]
) -> None:
    port, directory = own_redis[-1].port, own_redis[-1].directory
    own_redis[-1].stop()
    first = score(fragile, "no-redis")
    assert any(reason.startswith("features:") for reason in first["degraded"])
    assert "timeout" in first["feature_status"].values()
    assert score(fragile, "no-redis") == first
    own_redis.append(start_redis(directory, port))
    numbers = iter(range(10_000))
    assert wait_for(lambda: score(fragile, f"back-{next(numbers)}")["degraded"] == [])
    found = [
        json.loads(fields[b"v"])["transaction_id"]
        for partition in range(2)
        for _, fields in fragile.redis.xrange(f"tollgate:transactions:{partition}")
    ]
    assert found.count("no-redis") == 1


def test_a_killed_worker_and_a_stop_lose_no_answered_decision(
    fragile: Service, own_redis: list[RedisServer]
) -> None:
    answered = [score(fragile, f"kept-{n}")["transaction_id"] for n in range(50)]
    (worker,) = workers(fragile)
    worker.kill()

    def is_back() -> bool:
        try:
            return httpx.get(fragile.url + "/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    assert wait_for(is_back, 300)
    assert score(fragile, "kept-7")["transaction_id"] == "kept-7"
    answered += [score(fragile, f"later-{n}")["transaction_id"] for n in range(50)]
    fragile.stop()
    convert_all(fragile.home)
    findings = audit(Path(fragile.home), open_keys(load_settings()).seal("log"), answered)
    assert findings.problems == []
    assert findings.series >= 2
