"""A load generator for one loopback service: an open loop for latency (saturation: `serving_closed_loop`).

The loop sends by a schedule that the service cannot slow down, and counts each latency from
the *intended* send time, so that queueing anywhere is in the figures (closed-loop generators hide
it: "coordinated omission"). Raw asyncio protocols keep it cheap beside the service it measures.
It refuses any address but the loopback interface and is bounded in rate, time and connections.
"""

from __future__ import annotations

import asyncio
import ipaddress
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import numpy as np

from benchmarks.alarm import Alarm

MOST_RATE = 20_000
MOST_SECONDS = 180
MOST_CONNECTIONS = 1024


@dataclass(slots=True)
class Load:
    """What a run saw. Latencies are seconds, of answers with any status."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0
    repeated: int = 0
    answers: list[tuple[float, int, bytes]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers with status 200 per second."""
        return self.statuses[200] / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200) + self.unanswered

    def milliseconds(self, percentile: float) -> float:
        return round(float(np.percentile(self.latencies, percentile)) * 1000, 3) if self.latencies else 0.0


class _Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection with one request under way at a time."""

    def __init__(self, finished: Callable[[_Connection, int, bytes], None]) -> None:
        self._finished = finished
        self._buffer = b""
        self.transport: asyncio.Transport | None = None
        self.intended = 0.0
        self.request = b""
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, intended: float) -> None:
        self.intended = intended
        self.request = request
        self.busy = True
        assert self.transport is not None
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lowered = head.lower()
        start = lowered.find(b"content-length:")
        length = int(lowered[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self.busy = False
        self._finished(self, int(head[9:12]), rest[:length])

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.busy:
            self.busy = False
            self._finished(self, 0, b"")


def http_request(port: int, path: str, body: bytes) -> bytes:
    """A POST of JSON as bytes on the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def check_bounds(host: str, connections: int, seconds: float, rate: float) -> None:
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError("the load generator only talks to the loopback interface")
    if connections > MOST_CONNECTIONS or seconds > MOST_SECONDS or rate > MOST_RATE:
        raise ValueError("beyond the generator's bounds")


async def at_rate(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float | Sequence[float],
    connections: int,
    keep: bool = False,
    patience: float = 5.0,
    repeat: int = 0,
) -> Load:
    """Open loop: request n is due at n / `rate` seconds, whether or not others were answered.

    A sequence in place of a rate says when each request is due, in seconds from the start.
    With `keep`, `answers` holds (intended time since the start, status, body) of each. A request
    whose connection breaks is sent again up to `repeat` times, as a payment client would (the
    service answers an id once); its latency still counts from the first intended time.
    """
    due_at = [place / rate for place in range(len(requests))] if isinstance(rate, int | float) else rate
    check_bounds("127.0.0.1", connections, due_at[-1], len(requests) / max(due_at[-1], 0.001))
    load = Load()
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    idle: deque[_Connection] = deque()
    waiting: deque[tuple[bytes, float]] = deque()
    begun = perf_counter()
    left = len(requests)

    replacing: set[asyncio.Task[None]] = set()

    def replace() -> None:
        task = loop.create_task(_replace())
        replacing.add(task)
        task.add_done_callback(replacing.discard)

    tried: Counter[float] = Counter()

    def finished(connection: _Connection, status: int, body: bytes) -> None:
        nonlocal left
        now = perf_counter()
        if not status and tried[connection.intended] < repeat:
            tried[connection.intended] += 1
            load.repeated += 1
            waiting.appendleft((connection.request, connection.intended))
            replace()
            return
        left -= 1
        if status:
            load.statuses[status] += 1
            load.latencies.append(now - connection.intended)
        else:
            load.unanswered += 1
        if keep:
            load.answers.append((connection.intended - begun, status, body))
        if left == 0 and not over.done():
            over.set_result(None)
        if connection.transport is None:
            replace()
        elif waiting:
            connection.send(*waiting.popleft())
        else:
            idle.append(connection)

    async def _replace() -> None:
        """Open a connection for one that the service closed; the service may be restarting."""
        for _ in range(200):
            try:
                fresh = await _connect(port, finished)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            if waiting:
                fresh.send(*waiting.popleft())
            else:
                idle.append(fresh)
            return

    for _ in range(connections):
        idle.append(await _connect(port, finished))
    every = list(idle)
    alarm = Alarm()
    begun = perf_counter()
    sent = 0
    try:
        while sent < len(requests):
            due = bisect_right(due_at, perf_counter() - begun, lo=sent)
            for place in range(sent, due):
                intended = begun + due_at[place]
                while idle and idle[0].transport is None:
                    idle.popleft()
                    replace()
                if idle:
                    idle.popleft().send(requests[place], intended)
                else:
                    waiting.append((requests[place], intended))
            sent = due
            if sent < len(requests):
                await alarm.at(begun + due_at[sent])
    finally:
        alarm.close()
    await asyncio.wait([over], timeout=patience)
    load.unanswered += left
    load.seconds = perf_counter() - begun
    _close(every)
    return load


async def _connect(port: int, finished: Callable[[_Connection, int, bytes], None]) -> _Connection:
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: _Connection(finished), "127.0.0.1", port
    )
    return connection


def _close(connections: Sequence[_Connection]) -> None:
    for connection in connections:
        connection.busy = False
        if connection.transport is not None:
            connection.transport.close()
