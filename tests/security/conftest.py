"""Services to attack: one with tokens, one without."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.redis_server import RedisServer, free_port
from tests.bentos.running import Service, save_model, start_service, store_features, transaction

#: Bounds that a test can reach quickly; a token of each scope has the scope's name.
BOUNDS = {
    "TOLLGATE_SERVE_HEAD_BYTES": "8192",
    "TOLLGATE_SERVE_HEAD_COUNT": "32",
    "TOLLGATE_SERVE_HEAD_SECONDS": "1.5",
    "TOLLGATE_SERVE_PEER_CONNECTIONS": "24",
}


def tokens_file(path: Path) -> Path:
    """A client for each scope, whose token is the scope's name."""
    clients = [
        {"name": f"the-{scope}-client", "sha256": [hashlib.sha256(scope.encode()).hexdigest()], "scopes": [scope]}
        | ({"label_sources": ["chargeback"]} if scope == "label" else {})
        for scope in ("score", "label", "outcome", "admin", "metrics")
    ]  # fmt: skip
    path.write_text(json.dumps({"clients": clients}))
    return path


def _service(home: Path, redis_server: RedisServer, database: int, **environment: str) -> Service:
    save_model(home, "first")
    running = start_service(home, f"redis://127.0.0.1:{redis_server.port}/{database}", **environment)
    store_features(running.redis, "tollgate", transaction())
    return running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Service]:
    """A service with a tokens file and tight bounds; `metrics_url` is its metrics port."""
    home = tmp_path_factory.mktemp("guarded") / "home"
    home.mkdir()
    running = _service(
        home, redis_server, 11, **BOUNDS,
        TOLLGATE_TOKENS_FILE=str(tokens_file(home / "tokens.json")),
        TOLLGATE_SERVE_METRICS_PORT=str(free_port()),
    )  # fmt: skip
    yield running
    running.stop()


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Service]:
    """A service without tokens, for local callers, that answers every request by ASGI."""
    running = _service(
        tmp_path_factory.mktemp("local") / "home", redis_server, 12, **BOUNDS,
        TOLLGATE_SERVE_LANE="false",
        TOLLGATE_SERVE_HOSTS="pay.example",
        TOLLGATE_SERVE_ORIGINS="http://console.example:8080",
    )  # fmt: skip
    yield running
    running.stop()
