"""A worker that is asked to stop lets its callers go: no connection is reset, readiness falls first."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from embedded.redis_server import RedisServer
from tests.bentos.running import save_model, start_service, transaction_json


def talk(port: int, number: int, found: list[str]) -> None:
    """Score over one kept-alive connection until it is closed with an answer, as a load balancer does that
    then goes elsewhere; note what went wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for turn in range(100_000):
        body = json.dumps(transaction_json(transaction_id=f"leave-{number}-{turn}"))
        try:
            connection.request("POST", "/v1/score", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            found.append(f"{type(error).__name__} in turn {turn}")
            return
        if answer.status != 200:
            found.append(f"{answer.status} in turn {turn}")
            return
        if answer.getheader("connection") == "close":
            found.append("let go")
            return
        time.sleep(0.002)


@pytest.mark.parametrize("lane", ["true", "false"])
def test_no_connection_is_reset_and_readiness_falls_first(
    redis_server: RedisServer, tmp_path: Path, lane: str
) -> None:
    home = tmp_path / "home"
    save_model(home, "first")
    service = start_service(
        home, f"redis://127.0.0.1:{redis_server.port}/5", TOLLGATE_FEAST_PROJECT="leave",
        TOLLGATE_SERVE_LANE=lane, TOLLGATE_SERVE_LEAVE_SECONDS="2",
    )  # fmt: skip
    port = int(service.url.rsplit(":", 1)[1])
    found: list[str] = []
    callers = [threading.Thread(target=talk, args=(port, number, found)) for number in range(8)]
    for caller in callers:
        caller.start()
    time.sleep(1)
    service.process.send_signal(signal.SIGTERM)
    not_ready = []
    while service.process.poll() is None:
        try:
            not_ready.append(httpx.get(f"{service.url}/readyz", timeout=2).status_code)
        except httpx.HTTPError:
            break
        time.sleep(0.05)
    for caller in callers:
        caller.join(30)
    service.process.wait(60)
    assert found == ["let go"] * 8
    assert 503 in not_ready
