"""A worker that is asked to stop lets its callers go: no connection is reset, readiness falls first."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from embedded.redis_server import RedisServer
from tests.bentos.running import save_model, start_service, transaction_json


def talk(port: int, number: int, until: threading.Event, found: list[str]) -> None:
    """Score over one kept-alive connection after the other until nobody listens; note what went wrong."""
    turn = 0
    while not until.is_set():
        try:
            connection = socket.create_connection(("127.0.0.1", port), 5)
        except OSError:
            return  # nobody listens any more: it has ended
        with connection:
            connection.settimeout(10)
            while not until.is_set():
                turn += 1
                body = json.dumps(transaction_json(transaction_id=f"leave-{number}-{turn}")).encode()
                head = f"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                try:
                    connection.sendall(head.encode() + body)
                    answer = connection.recv(65_536)
                except OSError as error:
                    found.append(f"{type(error).__name__} in turn {turn}")
                    return
                if not answer:
                    found.append(f"closed without an answer in turn {turn}")
                    return
                if not answer.startswith(b"HTTP/1.1 200"):
                    found.append(answer[:60].decode())
                if b"connection: close" in answer.lower():
                    break


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
    over, found = threading.Event(), list[str]()
    callers = [threading.Thread(target=talk, args=(port, number, over, found)) for number in range(8)]
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
    over.set()
    assert service.process.wait(30) is not None
    assert found == []
    assert 503 in not_ready
