"""The service that the tests of routes share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from embedded.redis_server import RedisServer
from tests.bentos.running import Service, save_model, start_service, store_features, transaction


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Service]:
    """One service that the tests of routes share; each uses transaction ids of its own."""
    home = tmp_path_factory.mktemp("service") / "home"
    save_model(home, "first")
    running = start_service(home, f"redis://127.0.0.1:{redis_server.port}/3", TOLLGATE_FEAST_PROJECT="routes")
    store_features(running.redis, "routes", transaction())
    yield running
    running.stop()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three models."""
    home = tmp_path_factory.mktemp("worker")
    for seed, version in enumerate(("three", "two", "one")):
        save_model(home, version, seed=seed, trees=5)
    (home / "deployment.json").write_text(json.dumps({"champion": "one"}))
    return home


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    """An empty Redis database."""
    url = f"redis://127.0.0.1:{redis_server.port}/8"
    redis.Redis.from_url(url).flushdb()
    return url
