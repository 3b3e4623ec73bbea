"""The running service on a Redis Cluster that loses masters: every answer, and nothing twice."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bentos.once.claims import answer_key, read_value
from stores.event_log import stream_name
from stores.keys import open_keys
from stores.settings import load_settings
from tests.bentos.failing_cluster import FailingCluster, failing_cluster
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
PARTITIONS = 8
CUSTOMERS = 24


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailingCluster]:
    with failing_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, cluster: FailingCluster) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("failover") / "home"
    save_model(home, "first")
    store = cluster.client()
    for number in range(CUSTOMERS):
        store_features(store, PROJECT, transaction(**entities(number)))
    running = start_service(
        # A deadline that a busy machine keeps, too.
        home, cluster.url, TOLLGATE_PARTITIONS=str(PARTITIONS), TOLLGATE_FEATURE_DEADLINE_MS="200"
    )  # fmt: skip
    yield running
    running.stop()
    running.redis.close()
    store.close()


def entities(number: int) -> dict[str, str]:
    number %= CUSTOMERS
    return {name: f"{name}-{number}" for name in ("customer_id", "card_id", "device_id", "terminal_id")}


class Caller:
    """Scores transactions with ids of its own, and remembers every answer."""

    def __init__(self, service: Service, prefix: str) -> None:
        self._service = service
        self._client = httpx.Client(base_url=service.url, timeout=10)
        self._prefix = prefix
        self.answers: dict[str, bytes] = {}

    def score(self) -> dict[str, Any]:
        """The answer to the next transaction; fails the test if there is none."""
        number = len(self.answers)
        name = f"{self._prefix}-{number}"
        response = self.ask(name, **entities(number))
        assert response.status_code == 200, response.text
        self.answers[name] = response.content
        answer: dict[str, Any] = response.json()
        return answer

    def ask(self, name: str, **changes: str) -> httpx.Response:
        return self._client.post("/v1/score", json=transaction_json(transaction_id=name, **changes))

    def healthy(self, in_a_row: int = 2 * CUSTOMERS) -> bool:
        """Whether so many answers in a row come with every feature and every effect."""
        return all(whole(self.score()) for _ in range(in_a_row))


def whole(answer: dict[str, Any]) -> bool:
    return answer["degraded"] == [] and set(answer["feature_status"].values()) == {"fresh"}


def events(service: Service) -> Counter[str]:
    return Counter(
        json.loads(fields[b"v"])["transaction_id"]
        for partition in range(PARTITIONS)
        for _, fields in service.redis.xrange(stream_name("transactions", partition))
    )


#   share 0, killed         |---- no master ----| its replica is the master
#   the service's answers   whole | degraded, with a reason      | whole again, by itself
#   share 1, frozen         the same, while the old master's connections hang instead of ending
@pytest.mark.parametrize(("share", "how"), [(0, "kill"), (1, "freeze")])
def test_a_lost_master_degrades_answers_until_its_replica_takes_over_and_loses_no_effect(
    cluster: FailingCluster, service: Service, share: int, how: str
) -> None:
    caller = Caller(service, how)
    assert wait_for(caller.healthy, 60)
    streams = {
        cluster.share(stream_name("transactions", partition).encode()) for partition in range(PARTITIONS)
    }
    assert share in streams
    assert share in {cluster.share(answer_key(PROJECT, name)) for name in caller.answers}
    assert wait_for(lambda: set(events(service)) >= set(caller.answers), 20)
    cluster.replicate(share)

    getattr(cluster, how)(share)
    lost_at = time.monotonic()
    reasons: Counter[str] = Counter()
    first = len(caller.answers)
    while not cluster.promoted(share):
        answer = caller.score()
        reasons.update(answer["degraded"])
        # Whoever did not get every feature is told why.
        if set(answer["feature_status"].values()) != {"fresh"}:
            assert any(reason.startswith("features:") for reason in answer["degraded"]), answer
        assert time.monotonic() - lost_at < 60
        time.sleep(0.01)
    assert any(reason.startswith("features:") for reason in reasons), reasons
    assert reasons["event_log:spooled"]
    during = list(caller.answers)[first:]
    assert len(during) > 10

    assert wait_for(caller.healthy, 60)
    # The effects follow: each event once, each answer as it was given.
    assert wait_for(lambda: set(events(service)) >= set(caller.answers), 30)
    found = events(service)
    assert {name: found[name] for name in caller.answers} == dict.fromkeys(caller.answers, 1)
    seal = open_keys(load_settings()).seal("answers")
    for name, answer in caller.answers.items():
        key = answer_key(PROJECT, name)
        stored = read_value(seal, key, service.redis.get(key))
        assert stored is not None
        assert stored.answered
        assert stored.rest == answer
    for name in (during[0], during[-1]):
        number = int(name.rpartition("-")[2])
        assert caller.ask(name, **entities(number)).content == caller.answers[name]
        assert caller.ask(name, **entities(number), amount="77.00").status_code == 409
