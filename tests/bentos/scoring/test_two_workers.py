"""One machine's workers while Redis is away: one decision per transaction id, whichever is asked."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx
import psutil
import pyarrow.parquet as pq
import pytest

from bentos.log.decision_files import convert_all
from bentos.tools.audit import audit
from embedded.redis_server import RedisServer, start_redis
from stores.keys import open_keys
from stores.settings import load_settings
from tests.bentos.running import Service, save_model, start_service, transaction_json, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[list[RedisServer]]:
    """A Redis that the test may stop and start; the list holds the one that runs now."""
    servers = [start_redis(tmp_path / "redis", durable=True)]
    yield servers
    servers[-1].stop()


@pytest.fixture
def service(tmp_path: Path, server: list[RedisServer]) -> Iterator[Service]:
    home = tmp_path / "home"
    save_model(home, "first")
    running = start_service(home, server[0].url, TOLLGATE_SERVE_WORKERS="2")
    yield running
    while Line.opened:
        Line.opened.pop().close()
    running.stop()
    running.redis.close()


class Line:
    """One connection, which one worker holds as long as it lives."""

    opened: ClassVar[list[Line]] = []

    def __init__(self, service: Service) -> None:
        self._client = httpx.Client(base_url=service.url, timeout=10)
        self.opened.append(self)
        self.worker: int = self._client.get("/v1/status").json()["worker"]

    def send(self, name: str, **changes: Any) -> httpx.Response:
        return self._client.post("/v1/score", json=transaction_json(transaction_id=name, **changes))

    def close(self) -> None:
        self._client.close()


def lines(service: Service, of_each: int = 4) -> dict[int, list[Line]]:
    """Connections to both workers, by worker."""
    found: dict[int, list[Line]] = {}

    def enough() -> bool:
        line = Line(service)
        mine = found.setdefault(line.worker, [])
        if len(mine) < of_each:
            mine.append(line)
        else:
            line.close()
        return len(found) == 2 and all(len(mine) == of_each for mine in found.values())

    assert wait_for(enough, 60), {worker: len(mine) for worker, mine in found.items()}
    return found


def files(service: Service) -> list[Path]:
    """What the workers append their answers to."""
    return list((service.home / "run" / "answers").glob("*.answers"))


def events(service: Service) -> Counter[str]:
    return Counter(
        json.loads(fields[b"v"])["transaction_id"]
        for partition in range(2)
        for _, fields in service.redis.xrange(f"tollgate:transactions:{partition}")
    )


def decided_once(service: Service, names: list[str]) -> None:
    """Assert it of the event log, and of the decision log, which this closes."""
    assert wait_for(lambda: events(service).keys() >= set(names), 30)
    assert {name: events(service)[name] for name in names} == dict.fromkeys(names, 1)
    service.stop()
    convert_all(service.home)
    logged = Counter(
        name
        for path in (service.home / "decisions").rglob("*.parquet")
        for name in pq.read_table(path, columns=["transaction_id"], partitioning=None)[0].to_pylist()
    )
    assert {name: logged[name] for name in names} == dict.fromkeys(names, 1)
    assert audit(service.home, open_keys(load_settings()).seal("log"), names).problems == []


def one_answer(lines: Iterable[Line], name: str) -> bytes:
    """The answer that every line gets, all asking at once; a refusal to wait for another is followed."""

    def insist(line: Line) -> bytes:
        answer = line.send(name)
        while answer.status_code == 503 and answer.headers["retry-after"] == "1":
            answer = line.send(name)
        assert answer.status_code == 200, answer.text
        return answer.content

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(insist, lines))
    assert len(answers) == 1, name
    return answers.pop()


def test_connections_that_are_opened_together_go_to_both_workers(service: Service) -> None:
    lines(service, 1)  # both have started
    url = urlsplit(service.url)
    with ExitStack() as pool:
        connections = [pool.enter_context(socket.socket()) for _ in range(64)]
        for connection in connections:  # all of them before any is answered, as a caller's pool does
            connection.setblocking(False)
            connection.connect_ex((url.hostname, url.port))
        shares = Counter(asked(connection)["worker"] for connection in connections)
    assert len(shares) == 2 and min(shares.values()) >= 13, shares


def asked(connection: socket.socket) -> dict[str, Any]:
    """What the worker that holds the connection says of itself."""
    connection.settimeout(10)
    connection.sendall(b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    status: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return status


#   worker 1   decides "before" | redis is away: both decide, each id once | redis is back, and learns
#   worker 2                    | what the other one has decided           | every answer and event once
@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_without_redis_an_id_has_one_decision_at_both_workers(
    service: Service, server: list[RedisServer], how: str
) -> None:
    first, second = lines(service).values()
    mixed = [line for pair in zip(first, second, strict=True) for line in pair]
    answers = {"before": first[0].send("before").content}
    # An answer is in its worker's file ten milliseconds later, and until then is Redis' to tell.
    assert wait_for(lambda: any(b"before" in one.read_bytes() for one in files(service)), 10)
    if how == "stop":
        server[-1].stop()
    else:
        os.kill(server[-1].pid, signal.SIGSTOP)
    try:
        # Of the time before, and of the outage: one after the other, and all at once.
        assert second[0].send("before").content == answers["before"]
        for n in range(10):
            mine, theirs = (first, second) if n % 2 else (second, first)
            answers[f"turn-{n}"] = mine[0].send(f"turn-{n}").content
            assert theirs[0].send(f"turn-{n}").content == answers[f"turn-{n}"]
        for n in range(40):
            answers[f"rush-{n}"] = one_answer(mixed, f"rush-{n}")
        degraded = json.loads(answers["rush-39"])["degraded"]
        assert any(reason.startswith("features:") for reason in degraded)
        assert "idempotency:this_worker" not in degraded
        for name in answers:
            for line in (first[0], second[0]):
                assert line.send(name, amount="999.00").status_code == 409
    finally:
        if how == "freeze":
            os.kill(server[-1].pid, signal.SIGCONT)
    if how == "stop":
        server.append(start_redis(server[-1].directory, server[-1].port, durable=True))
    for name, answer in answers.items():
        assert {line.send(name).content for line in mixed} == {answer}
    decided_once(service, list(answers))


def test_what_a_killed_worker_decided_without_redis_holds_at_the_other_and_at_its_successor(
    service: Service, server: list[RedisServer]
) -> None:
    found = lines(service, 1)
    (killed, (line,)), (survivor, (other,)) = found.items()
    server[-1].stop()
    answers = {f"late-{n}": line.send(f"late-{n}").content for n in range(5)}
    psutil.Process(killed).kill()
    for name, answer in list(answers.items())[:3]:
        assert other.send(name).content == answer
        assert other.send(name, country="FR").status_code == 409

    def successor() -> Line | None:
        try:
            line = Line(service)
        except httpx.TransportError:
            return None
        return line if line.worker not in (killed, survivor) else None

    followers: list[Line] = []

    def has_started() -> bool:
        if (line := successor()) is not None:
            followers.append(line)
        return bool(followers)

    assert wait_for(has_started, 240)
    for name, answer in answers.items():
        assert followers[0].send(name).content == answer
    server.append(start_redis(server[-1].directory, server[-1].port, durable=True))
    decided_once(service, list(answers))
