"""The service that the tests of routes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
