"""`/v1/score` in the server's protocol: the same answers as by ASGI, in the order of the requests."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from embedded.redis_server import RedisServer
from tests.bentos.running import Service, save_model, start_service, transaction_json

#: A header that the lane leaves to uvicorn's proxy middleware: the same request by the other way.
BY_ASGI = b"x-forwarded-proto: http\r\n"


@contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    split = urlsplit(service.url)
    assert split.port is not None
    with closing(socket.create_connection((split.hostname or "", split.port), timeout=20)) as connection:
        yield connection


def request(body: bytes, *, method: str = "POST", headers: bytes = b"", version: str = "1.1") -> bytes:
    kind = b"" if b"content-type" in headers else b"content-type: application/json\r\n"
    head = f"{method} /v1/score HTTP/{version}\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n".encode()
    return head + kind + headers + b"\r\n" + body


def scored(name: str, **changes: Any) -> bytes:
    return json.dumps(transaction_json(transaction_id=name, **changes)).encode()


def answers(connection: socket.socket, number: int) -> list[tuple[bytes, dict[bytes, bytes], bytes]]:
    """The next `number` answers: status line, headers but the date, body."""
    found: list[tuple[bytes, dict[bytes, bytes], bytes]] = []
    buffer = b""
    while len(found) < number:
        head, separator, rest = buffer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines[1:]) if separator else {}
        length = int(headers.get(b"content-length", b"0"))
        if separator and len(rest) >= length:
            headers.pop(b"date", None)
            found.append((lines[0], headers, rest[:length]))
            buffer = rest[length:]
            continue
        data = connection.recv(65_536)
        if not data:
            raise EOFError(f"closed after {len(found)} answers")
        buffer += data
    assert not buffer
    return found


def closed(connection: socket.socket) -> bool:
    return connection.recv(1) == b""


CASES = {
    "decided": request(scored("lane-1")),
    "another body": request(scored("lane-1", amount="13.00")),
    "a field missing": request(scored("lane-2", card_id=None)),
    "no JSON": request(b"{nothing"),
    "no body": request(b""),
    "a type": request(scored("lane-3"), headers=b"content-type: text/plain\r\n"),
    "an encoding": request(scored("lane-3"), headers=b"content-encoding: gzip\r\n"),
    "a method": request(b"", method="GET"),
    "too large": request(b"[" * 200_000),
    "a card number": request(scored("4111111111111111")),
}


@pytest.mark.parametrize("case", CASES)
def test_both_ways_answer_the_same(service: Service, case: str) -> None:
    seen = []
    for headers in (b"", BY_ASGI):
        with connected(service) as connection:
            if case == "another body":  # of an id that is decided already
                connection.sendall(CASES["decided"])
                answers(connection, 1)
            head, body = CASES[case].split(b"\r\n\r\n", 1)
            connection.sendall(head + b"\r\n" + headers + b"\r\n" + body)
            seen += answers(connection, 1)
    assert seen[0] == seen[1]


def test_answers_come_in_the_order_of_pipelined_requests(service: Service) -> None:
    status = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
    pieces = [
        request(scored("order-0")), request(b"{broken"), request(scored("order-1")), status,
        request(scored("order-2")), request(scored("order-3"), headers=BY_ASGI), request(scored("order-4")),
    ]  # fmt: skip
    with connected(service) as connection:
        connection.sendall(b"".join(pieces))
        found = answers(connection, len(pieces))
    lines = [line.split()[1] for line, _, _ in found]
    assert lines == [b"200", b"400", b"200", b"200", b"200", b"200", b"200"]
    names = [json.loads(found[place][2])["transaction_id"] for place in (0, 2, 4, 5, 6)]
    assert names == [f"order-{number}" for number in range(5)]


def test_many_pipelined_requests_are_all_answered(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(b"".join(request(scored(f"many-{number}")) for number in range(60)))
        found = answers(connection, 60)
    assert [json.loads(body)["transaction_id"] for _, _, body in found] == [f"many-{n}" for n in range(60)]


@pytest.mark.parametrize("cut", [20, 150, 400])
def test_a_request_in_parts_is_answered_once_it_is_whole(service: Service, cut: int) -> None:
    whole = request(scored(f"parts-{cut}"))
    with connected(service) as connection:
        connection.sendall(whole[:cut])
        time.sleep(0.05)
        connection.sendall(whole[cut:] + request(scored(f"parts-{cut}-next"))[:30])
        assert json.loads(answers(connection, 1)[0][2])["transaction_id"] == f"parts-{cut}"
        connection.sendall(request(scored(f"parts-{cut}-next"))[30:])
        assert json.loads(answers(connection, 1)[0][2])["transaction_id"] == f"parts-{cut}-next"


def test_a_body_that_does_not_come_is_not_waited_for(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(request(scored("never"))[:-5])
        line, headers, body = answers(connection, 1)[0]
        assert line == b"HTTP/1.1 408 Request Timeout"
        assert headers[b"connection"] == b"close"
        assert json.loads(body)["error"]["field"] == "(body)"
        assert closed(connection)


@pytest.mark.parametrize(
    ("headers", "version"), [(b"connection: close\r\n", "1.1"), (b"", "1.0"), (BY_ASGI, "1.0")]
)
def test_a_connection_that_is_not_to_be_kept_is_closed(
    service: Service, headers: bytes, version: str
) -> None:
    with connected(service) as connection:
        connection.sendall(request(scored(f"last-{version}"), headers=headers, version=version))
        assert answers(connection, 1)[0][1][b"connection"] == b"close"
        assert closed(connection)


def test_a_caller_that_leaves_harms_nobody(service: Service) -> None:
    for number in range(20):
        with connected(service) as connection:
            connection.sendall(request(scored(f"leaves-{number}")) + request(scored("half"))[: 40 * number])
    assert httpx.post(service.url + "/v1/score", json=transaction_json(transaction_id="after")).is_success
    text = service.log.read_text()
    assert "Traceback" not in text


def test_a_request_that_expects_to_be_told_to_go_on_is_told(service: Service) -> None:
    whole = request(scored("expects"), headers=b"expect: 100-continue\r\n")
    head, body = whole.split(b"\r\n\r\n", 1)
    with connected(service) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert answers(connection, 1)[0][0] == b"HTTP/1.1 200 OK"


def test_a_caller_that_is_turned_away_and_comes_back_at_once_leaves_the_others_their_turns(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """It is read again after a breath only: while others are answered so often, it is refused some times."""
    home = tmp_path / "home"
    save_model(home, "first")
    service = start_service(home, f"redis://127.0.0.1:{redis_server.port}/3", TOLLGATE_CLIENT_RATE="1")
    statuses: list[bytes] = []
    over = threading.Event()

    def hammer() -> None:
        with connected(service) as connection:
            while not over.is_set():
                connection.sendall(request(scored(f"again-{len(statuses)}")))
                statuses.append(answers(connection, 1)[0][0].split()[1])

    hammering = threading.Thread(target=hammer)
    try:
        hammering.start()
        status = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
        with connected(service) as connection:
            for _ in range(400):
                connection.sendall(status)
                assert answers(connection, 1)[0][0].endswith(b"200 OK")
    finally:
        over.set()
        hammering.join()
        service.stop()
        service.redis.close()
    assert statuses[:1] == [b"200"]
    assert 0 < statuses.count(b"429") < 100
