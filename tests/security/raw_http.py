"""Requests byte by byte, as no client library would send them."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from tests.bentos.running import Service, transaction_json


class Answer(NamedTuple):
    """One answer on a connection."""

    status: int
    headers: dict[str, str]
    body: bytes


@contextmanager
def connected(service: Service, seconds: float = 20) -> Iterator[socket.socket]:
    split = urlsplit(service.url)
    assert split.port is not None
    with closing(socket.create_connection((split.hostname or "", split.port), timeout=seconds)) as connection:
        yield connection


def request(
    target: str, body: bytes = b"", *, method: str = "POST", token: str | None = None, headers: str = "",
    host: str = "localhost", kind: str = "application/json",
) -> bytes:  # fmt: skip
    """A request with exactly this target; without a body it declares none."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    if token is not None:
        lines.append(f"authorization: Bearer {token}")
    if kind:
        lines.append(f"content-type: {kind}")
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n" + headers + "\r\n").encode() + body


def ask(service: Service, raw: bytes) -> Answer:
    """The first answer to `raw` on a connection of its own."""
    with connected(service) as connection:
        connection.sendall(raw)
        return read_answers(connection, 1)[0]


def read_answers(connection: socket.socket, number: int) -> list[Answer]:
    """The next `number` answers; EOFError when the connection ends before."""
    found, rest = _parse(b""), b""
    while len(found) < number:
        data = connection.recv(65_536)
        if not data:
            raise EOFError(f"closed after {len(found)} answers: {rest[:200]!r}")
        rest += data
        found = _parse(rest)
    return found[:number]


def read_to_end(connection: socket.socket) -> list[Answer]:
    """Every answer until the service closes the connection."""
    data = b""
    while True:
        try:
            more = connection.recv(65_536)
        except ConnectionResetError:
            more = b""
        if not more:
            return _parse(data)
        data += more


def _parse(data: bytes) -> list[Answer]:
    found: list[Answer] = []
    while True:
        head, separator, rest = data.partition(b"\r\n\r\n")
        lines = head.decode("latin1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        if not separator or len(rest) < length:
            return found
        found.append(Answer(int(lines[0].split()[1]), headers, rest[:length]))
        data = rest[length:]


def counted(service: Service, name: str, **labels: str) -> float:
    """What `/metrics` says of one series; 0 if it is not there."""
    text = metrics(service)
    inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
    found = re.search(rf"^{name}{re.escape('{' + inside + '}') if inside else ''} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def metrics(service: Service) -> str:
    return httpx.get(service.url + "/metrics", headers={"authorization": "Bearer metrics"}).text


def scored(name: str, **changes: Any) -> bytes:
    return json.dumps(transaction_json(transaction_id=name, **changes)).encode()
