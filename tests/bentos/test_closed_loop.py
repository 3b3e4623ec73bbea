"""The benchmark's closed loop counts what a real server on loopback answers, and what it does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from benchmarks.serving_closed_loop import saturate
from benchmarks.serving_load import http_request

_LARGE = b"x" * 200_000


def _answer(number: int) -> bytes:
    """Every fifth is a refusal, every seventh has a large body, every other has its length in capitals."""
    status = b"503 Service Unavailable" if number % 5 == 0 else b"200 OK"
    body = _LARGE if number % 7 == 0 else b"ok"
    name = b"Content-Length" if number % 2 else b"content-length"
    return b"HTTP/1.1 %b\r\nserver: test\r\n%b: %d\r\n\r\n%b" % (status, name, len(body), body)


@contextmanager
def _server(lost_after: int, last: bytes = b"") -> Iterator[int]:
    """A server that answers in two pieces; to a connection's request `lost_after` it says `last` and closes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests:
            for number in range(lost_after):
                while (line := requests.readline()) not in (b"\r\n", b""):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                if not line:
                    return
                requests.read(length)
                if number == lost_after - 1:
                    connection.sendall(last)
                    return
                answer = _answer(number)
                connection.sendall(answer[:25])
                connection.sendall(answer[25:])

    def accept() -> None:
        with suppress(OSError):  # it has been closed
            while True:
                threading.Thread(target=serve, args=listening.accept()[:1], daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 200", b"HTTP/1.1 no status\r\n\r\n"])
@pytest.mark.parametrize("connections", [1, 4])
def test_answers_are_counted_by_status_and_a_lost_connection_ends_no_other(
    connections: int, last: bytes
) -> None:
    answered = 50
    with _server(answered + 1, last) as port:
        requests = [http_request(port, "/v1/score", b"{}") for _ in range(1000)]
        load = saturate(port, requests, connections=connections, seconds=20)
    refused = sum(number % 5 == 0 for number in range(answered))
    assert load.statuses == {503: connections * refused, 200: connections * (answered - refused)}
    assert load.unanswered == connections
    assert len(load.latencies) == connections * answered


def test_every_request_is_sent_once() -> None:
    with _server(lost_after=1000) as port:
        requests = [http_request(port, "/v1/score", b"{}") for _ in range(30)]
        load = saturate(port, requests, connections=4, seconds=20)
    assert load.statuses.total() == 30
    assert load.unanswered == 0
