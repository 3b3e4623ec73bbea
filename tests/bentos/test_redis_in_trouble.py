"""Redis read-only, out of memory, or failing to save: reads go on, effects wait, all resumes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import redis

from embedded.redis_server import start_redis
from stores.event_log import partition_of, stream_name
from tests.bentos.running import save_model, start_service, store_features, transaction, transaction_json

Trouble = tuple[Callable[[redis.Redis], object], Callable[[redis.Redis], object]]


def out_of_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1mb")


TROUBLES: dict[str, Trouble] = {
    "read-only": (lambda client: client.replicaof("127.0.0.1", 1), lambda client: client.replicaof("no", "one")),
    "out of memory": (out_of_memory, lambda client: client.config_set("maxmemory", "0")),
    # As when saving fails: writes are refused until enough replicas are there.
    "refuses writes": (
        lambda client: client.config_set("min-replicas-to-write", "1"),
        lambda client: client.config_set("min-replicas-to-write", "0"),
    ),
}  # fmt: skip


def test_reads_go_on_effects_wait_and_all_resumes_by_itself(tmp_path: Path) -> None:
    server = start_redis(tmp_path / "redis")
    home = tmp_path / "home"
    save_model(home, "first")
    service = start_service(home, server.url, TOLLGATE_FEAST_PROJECT="trouble")
    try:
        client = service.redis
        store_features(client, "trouble", transaction())  # type: ignore[arg-type]
        names = []
        for number, (trouble, (begin, end)) in enumerate(TROUBLES.items()):
            begin(client)  # type: ignore[arg-type]
            for turn in range(20):
                name = f"trouble-{number}-{turn}"
                answer = httpx.post(
                    service.url + "/v1/score", json=transaction_json(transaction_id=name), timeout=20
                )
                assert answer.status_code == 200, (trouble, answer.text)
                assert answer.json()["feature_status"]["customer_profile"] in ("fresh", "stale"), (
                    trouble,
                    answer.text,
                )
                names.append(name)
            end(client)  # type: ignore[arg-type]
            stream = stream_name("transactions", partition_of("customer-1", 2))
            deadline = time.monotonic() + 60
            while client.xlen(stream) < len(names):
                assert time.monotonic() < deadline, (trouble, client.xlen(stream), len(names))
                time.sleep(0.1)
            assert client.xlen(stream) == len(names), trouble
    finally:
        service.stop()
        server.stop()
