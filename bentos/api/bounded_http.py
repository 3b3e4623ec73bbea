"""uvicorn's HTTP protocol with bounds on what a caller may send before anybody has looked at it.

httptools bounds neither the bytes of headers nor the time they take; here a connection has a time from
its first byte (and from its opening) to the end of the headers, a size and a number of headers, and a
worker a number of connections, in all and from one address. `Upgrade`, other versions of HTTP and request
targets that are no path are refused: what the parser would do with the bytes that follow is a matter of
opinion between proxies and servers, and whoever differs gets another caller's answers (request smuggling).

What is refused gets one answer, after those that are due before it, and the connection is closed;
`Door.refused` is told the kind.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bentos.base.problem import Problem
from stores.settings import Settings

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

_JSON: Final = b"content-type: application/json\r\ncontent-length: %d\r\n"
_CLOSE: Final = b"connection: close\r\n"
#: Bytes of a body and all that frames it (chunks' sizes, trailers): twice the largest that a route takes.
LARGEST_FRAMED: Final = 3_000_000
#: Requests of one connection that may wait for the one before them. A read may hold thousands of short ones,
#: and each that waits takes kilobytes.
MOST_PIPELINED: Final = 64
#: Files a worker needs beside its callers' connections.
_OTHER_FILES: Final = 128


class Bounds(NamedTuple):
    """What one worker takes from its callers."""

    head_bytes: int
    head_count: int
    head_seconds: float
    connections: int
    peer_connections: int


def bounds_of(chosen: Settings) -> Bounds:
    """The bounds of the settings, and no more connections than the process may have files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = chosen.http.connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = chosen.http.connections
    if soft != resource.RLIM_INFINITY:
        most = max(1, min(most, soft - _OTHER_FILES))
    return Bounds(
        chosen.http.head_bytes, chosen.http.head_count, chosen.http.head_seconds, most,
        chosen.http.peer_connections,
    )  # fmt: skip


class Door(NamedTuple):
    """What the connections of one worker share."""

    bounds: Bounds
    refused: Callable[[str], None]
    peers: Counter[str]


class _Refused(Exception):  # not an error: it makes the parser stop where it is
    pass


class BoundedHttp(HttpToolsProtocol):
    """A connection; see the module."""

    _heads: ClassVar[dict[int, tuple[object, bytes]]] = {}

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door = door
        self._peer = ""
        self._refusal: tuple[Problem, str] | None = None
        self._in_head = False  # a request has begun, and its headers have not ended
        self._in_body = False
        self._begun = 0  # requests that began in this read
        self._head_fed = 0  # bytes of reads that belong to the head under way
        self._head_unsure = False  # more of it may have been in the read that ended the request before
        self._most_head = 0  # no head that ends in this read is longer
        self._body_fed = 0
        self._head_timer: asyncio.TimerHandle | None = None

    # -- connections -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        bounds, peers = self._door.bounds, self._door.peers
        self._peer = peer_of(self.client[0]) if self.client else ""
        peers[self._peer] += 1
        if len(self.connections) > bounds.connections:
            self._refuse(503, "(connection)", "the service has as many as it takes", "connections")
        elif self._peer and peers[self._peer] > bounds.peer_connections:
            self._refuse(503, "(connection)", "this address has as many as it may", "peer_connections")
        else:
            self._head_timer = self.loop.call_later(bounds.head_seconds, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        peers = self._door.peers
        peers[self._peer] -= 1
        if not peers[self._peer]:
            del peers[self._peer]
        self._end_head_timer()
        super().connection_lost(exc)

    # -- bytes -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self.transport.is_closing():
            return
        idle, in_body = not (self._in_head or self._in_body), self._in_body
        self._begun = 0
        self._most_head = self._head_fed + len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._broken()
            return
        if self._in_head:
            if self._begun == 0:
                self._head_fed += len(data)
            else:  # of a read with the end of another request in it nobody knows which part is this one's
                self._head_unsure = not (idle and self._begun == 1)
                self._head_fed = 0 if self._head_unsure else len(data)
            if self._head_fed > self._door.bounds.head_bytes:
                self._refuse(431, "(headers)", self._too_long(), "head_bytes")
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(self._door.bounds.head_seconds, self._head_late)
        elif in_body and self._in_body and not self._begun:
            self._body_fed += len(data)
            if self._body_fed > LARGEST_FRAMED:
                self._refuse(413, "(body)", f"larger than {LARGEST_FRAMED} bytes with its framing", "size")

    def _broken(self) -> None:
        """The parser stopped: at a refusal of ours, or at what is no HTTP."""
        if self._refusal is None:
            self._refuse(400, "(request)", "is not HTTP/1.1 as RFC 9112 has it", "malformed")
        else:
            self._say_refusal()

    # -- the parser's callbacks --------------------------------------------------------------

    def on_message_begin(self) -> None:
        # Not at any byte: line feeds between requests must not keep a connection open.
        self._unset_keepalive_if_required()
        self._in_head = True
        self._in_body = False
        self._begun += 1
        # The scope is made when it is known that somebody wants it.
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # after a chunked body headers come again (trailers): they are nobody's
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unset_keepalive_if_required()  # of an answer that left meanwhile
        self._in_head = False
        self._head_fed = self._body_fed = 0
        self._end_head_timer()
        bounds = self._door.bounds
        if len(self.headers) > bounds.head_count:
            self._stop(431, "(headers)", f"are more than {bounds.head_count}", "head_count")
        unsure = self._most_head > bounds.head_bytes or self._head_unsure
        self._head_unsure = False
        if unsure and self._head_length() > bounds.head_bytes:
            self._stop(431, "(headers)", self._too_long(), "head_bytes")
        self.take()
        self._in_body = True

    def take(self) -> None:
        """Take a request whose headers are there: by ASGI."""
        self.by_asgi()

    def by_asgi(self) -> None:
        """Give the request to uvicorn."""
        if self.url[:1] != b"/" or b"#" in self.url:  # a fragment is nobody's but the browser's
            self._stop(400, "(target)", "should be a path", "target")
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._stop(505, "(version)", "should be HTTP/1.1", "version")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if version == "1.0" and codings:
            self._stop(400, "transfer-encoding", "is not of HTTP/1.0", "framing")
        if codings and codings != [b"chunked"]:  # the parser would drop any other coding in silence
            self._stop(400, "transfer-encoding", "should be chunked alone", "framing")
        if self.parser.should_upgrade() or any(name == b"upgrade" for name, _ in self.headers):
            self._stop(400, "upgrade", "should be absent", "upgrade")
        if len(self.pipeline) >= MOST_PIPELINED:
            self._stop(503, "(connection)", f"has more than {MOST_PIPELINED} requests waiting", "pipelined")
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.headers.extend(headers)
        self.url, self.expect_100_continue = url, expect
        self.before_asgi()
        super().on_headers_complete()

    def before_asgi(self) -> None:
        """A last look before uvicorn has the request."""

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    # -- refusals ----------------------------------------------------------------------------

    def _stop(self, status: int, field: str, reason: str, kind: str) -> None:
        """Refuse from within the parser, which then reads no further."""
        self._refusal = Problem(status, field, reason), kind
        raise _Refused

    def _refuse(self, status: int, field: str, reason: str, kind: str) -> None:
        self._refusal = Problem(status, field, reason), kind
        self._say_refusal()

    def _say_refusal(self) -> None:
        assert self._refusal is not None
        problem, kind = self._refusal
        self._door.refused(kind)
        self._end_head_timer()
        self._unset_keepalive_if_required()
        self.flow.pause_reading()
        body = problem.json()
        self.last_words(
            b"".join((self.head(problem.status), _JSON % len(body), _CLOSE, b"\r\n", body)),
        )
        self.loop.call_later(self._door.bounds.head_seconds, self._give_up)

    def last_words(self, answer: bytes) -> None:
        """Write `answer` and close; if others are due before it, close after them."""
        if self.pipeline:
            self.pipeline[0][0].keep_alive = False  # the newest
        elif self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started or not self._in_body:
                self.cycle.keep_alive = False
                return
            self.transport.write(answer)  # in the place of an answer that waits for the body
            self.transport.close()
        else:
            self.transport.write(answer)
            self.transport.close()

    def head(self, status: int) -> bytes:
        """Status line and the server's headers, which it makes anew once a second."""
        headers = self.server_state.default_headers
        known = self._heads.get(status)
        if known is None or known[0] is not headers:
            lines = b"".join([b"%b: %b\r\n" % header for header in headers])
            known = self._heads[status] = headers, STATUS_LINE[status] + lines
        return known[1]

    def _head_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or self._refusal is not None:
            return
        if not self._in_head:  # nothing was asked, so nothing is answered
            self._door.refused("head_time")
            self.transport.close()
            return
        seconds = self._door.bounds.head_seconds
        self._refuse(408, "(headers)", f"took longer than {seconds:g} seconds to arrive", "head_time")

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.loop.call_later(self._door.bounds.head_seconds, self._give_up)

    def _give_up(self) -> None:
        """Closing waits until the caller has read its answers: not for one that does not."""
        if self.parser is not None and self.transport.is_closing():  # and not lost yet
            self.transport.abort()

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_length(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_long(self) -> str:
        return f"are longer than {self._door.bounds.head_bytes} bytes"


def peer_of(address: str) -> str:
    """Whom the connections from `address` are counted for: an IPv6 network of 64 bits is one caller's."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        if not parsed.is_loopback:
            return str(IPv6Address(int(parsed) >> 64 << 64))
    return address
