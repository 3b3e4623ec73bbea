"""A connection's bytes, cut anywhere: what is within bounds is answered, what is not ends the connection.

The protocol itself on a transport that keeps what is written, in an event loop that never waits.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from bentos.api.bounded_http import BoundedHttp, Bounds, Door
from bentos.api.exchange import respond

LONGEST, MOST = 400, 12
#: A read is never longer: what of an endless head may have been read when it is refused.
READ = 300


class Wire(asyncio.Transport):
    """What the protocol does with its connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data: Any) -> None:
        assert not self.closed, "written behind the end"
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the request's number, once its body is there."""
    while (await receive()).get("more_body", False):
        pass
    await respond(send, 200, dict(scope["headers"]).get(b"x-number", b"none"))


CONFIG = Config(app, log_config=None, lifespan="off", proxy_headers=False)
CONFIG.load()


def talk(pieces: Sequence[bytes], **changes: Any) -> tuple[Wire, Counter[str], Counter[str]]:
    """The wire after `pieces` were read one by one, what was refused, and whose connections are open."""
    refused: Counter[str] = Counter()
    peers: Counter[str] = Counter()
    bounds = Bounds(LONGEST, MOST, 60.0, 100, 100)._replace(**changes)

    async def run() -> Wire:
        door = Door(bounds, lambda kind: refused.update([kind]), peers)
        wire = Wire()
        protocol = BoundedHttp(CONFIG, ServerState(), {}, door=door)
        protocol.connection_made(wire)
        for piece in pieces:
            protocol.data_received(piece)
            for _ in range(12):
                await asyncio.sleep(0)
        for _ in range(12 * len(pieces)):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return wire

    return asyncio.run(run()), refused, peers


def statuses(wire: Wire) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", wire.written)]


def request(number: int, extra: int = 0, headers: int = 0, body: bytes = b"", chunked: bool = False) -> bytes:
    """A request whose head is `extra` bytes longer than the shortest."""
    lines = [f"POST /{'a' * (extra // 2)} HTTP/1.1", "host: localhost", f"x-number: {number}"]
    lines += [f"x-{place}: y" for place in range(headers)]
    lines.append(f"x-long: {'b' * (extra - extra // 2)}")
    lines.append("transfer-encoding: chunked" if chunked else f"content-length: {len(body)}")
    framed = (b"%x\r\n%b\r\n0\r\nx-after: z\r\n\r\n" % (len(body), body)) if chunked and body else body
    framed = b"0\r\n\r\n" if chunked and not body else framed
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + framed


good = st.builds(
    request, st.integers(0, 9), st.integers(0, 200), st.integers(0, 4), st.binary(max_size=700), st.booleans()
)
too_long = st.builds(request, st.integers(0, 9), st.integers(LONGEST, 1200))
too_many = st.builds(request, st.integers(0, 9), st.just(0), st.integers(MOST, 40))


@st.composite
def cut(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """The bytes in reads of any size."""
    pieces, rest = [], whole
    while rest:
        size = draw(st.integers(1, READ))
        pieces.append(rest[:size])
        rest = rest[size:]
    return pieces


@given(st.data(), st.lists(good, min_size=1, max_size=5))
def test_requests_within_bounds_are_all_answered_wherever_they_are_cut(
    data: st.DataObject, requests: list[bytes]
) -> None:
    wire, refused, peers = talk(data.draw(cut(b"".join(requests))))
    assert statuses(wire) == [200] * len(requests)
    assert (refused, peers) == (Counter(), Counter())
    numbers = [re.search(rb"x-number: (\d)", each) for each in requests]
    assert re.findall(rb"\r\n\r\n(\d)", wire.written) == [found[1] for found in numbers if found]


@given(st.data(), st.lists(good, max_size=4), too_long | too_many, st.lists(good, max_size=2))
def test_the_first_head_out_of_bounds_ends_the_connection_behind_the_answers_before_it(
    data: st.DataObject, before: list[bytes], bad: bytes, after: list[bytes]
) -> None:
    wire, refused, peers = talk(data.draw(cut(b"".join([*before, bad, *after]))))
    found = statuses(wire)
    assert found[: len(before)] == [200] * len(before)
    assert found[len(before) :] in ([431], [])  # none, when the answer before it was still under way
    assert wire.closed
    assert refused.keys() <= {"head_bytes", "head_count"}
    assert sum(refused.values()) == 1
    assert peers == Counter()


@given(st.data(), st.lists(good, max_size=3))
def test_of_a_head_without_end_one_read_more_than_the_bound_is_taken(
    data: st.DataObject, before: list[bytes]
) -> None:
    pieces = data.draw(cut(b"".join([*before, b"GET / HTTP/1.1\r\nx: " + b"a" * 5000])))
    wire, refused, _ = talk(pieces)
    assert refused == Counter(["head_bytes"])
    assert wire.closed
    # The same, if the connection ends where the bound says: two reads more, at most, of which one may hold
    # the end of a request before it.
    taken, number = 0, 0
    while taken < len(b"".join(before)) + LONGEST + 2 * READ:
        taken, number = taken + len(pieces[number]), number + 1
    assert talk(pieces[:number])[1] == Counter(["head_bytes"])


@given(
    st.data(),
    st.lists(good, max_size=3),
    st.sampled_from([b"upgrade: h2c\r\n", b"Upgrade:\r\nconnection: upgrade\r\n"]),
)
def test_nothing_behind_an_upgrade_is_a_request(
    data: st.DataObject, before: list[bytes], headers: bytes
) -> None:
    upgrade = b"POST / HTTP/1.1\r\nhost: localhost\r\n" + headers + b"content-length: 90\r\n\r\n"
    wire, refused, _ = talk(data.draw(cut(b"".join([*before, upgrade, request(9)]))))
    assert statuses(wire).count(200) == len(before)
    assert refused == Counter(["upgrade"])
    assert wire.closed


def test_connections_beyond_those_of_a_worker_or_an_address_are_told_and_closed() -> None:
    for name, kind in (("connections", "connections"), ("peer_connections", "peer_connections")):
        wire, refused, peers = talk([request(1)], **{name: 0})
        assert (statuses(wire), wire.closed, refused) == ([503], True, Counter([kind]))
        assert peers == Counter()


def test_a_caller_that_does_not_read_its_refusal_is_given_up() -> None:
    async def run() -> Wire:
        wire = Wire()
        door = Door(Bounds(LONGEST, MOST, 0.01, 100, 100), lambda kind: None, Counter())
        protocol = BoundedHttp(CONFIG, ServerState(), {}, door=door)
        protocol.connection_made(wire)
        protocol.data_received(b"GET /\r\n\r\n")
        assert (wire.closed, wire.aborted) == (True, False)
        while not wire.aborted:
            await asyncio.sleep(0.01)
        protocol.connection_lost(None)
        return wire

    assert statuses(asyncio.run(run())) == [505]
