"""The shortest way from a socket to a decision: `/v1/score` inside the server's HTTP protocol.

An ASGI server makes a scope, a task, an event and two writes of every request; for an answer of
half a kilobyte that takes a third of the service's time. `ScoreLane` is uvicorn's httptools
protocol with one thing added: a plain `POST /v1/score` goes straight to the engine once its body
is there, and its answer back in one write. Everything else (another path, a body of unknown
length, `expect`, proxies' headers, HTTP/1.0) takes uvicorn's own way through `bentos.api.edge`, which
answers the same; tests hold the two to the same bytes. What a caller may send before that is
bounded for both (`bentos.api.bounded_http`).

`bentos.service` puts it where uvicorn looks for its protocol, so plain `bentoml serve` finds it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http import auto

from bentos.api.bounded_http import BoundedHttp, Door
from bentos.api.edge import SCORE_PATH, Edge
from bentos.api.exchange import BODY_SECONDS, failed, too_late
from bentos.base.problem import Problem
from fraud.contract.transaction import LARGEST_BODY

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

_log = logging.getLogger("tollgate.edge")

_PATH: Final = SCORE_PATH.encode()
#: Requests with one of these need more than a body and an answer.
_OTHERS: Final = frozenset(
    (b"transfer-encoding", b"expect", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto")
)
#: What uvicorn's protocol sees in place of a cycle while answers of this lane are due before it.
_BUSY: Final = SimpleNamespace(response_complete=False, message_event=SimpleNamespace(set=lambda: None))
_JSON: Final = b"content-type: application/json\r\ncontent-length: %d\r\n"
#: Seconds that an idle worker with siblings stands back after it took a connection. All of them wait at
#: one socket, and the first to wake would take most of a pool's connections, for as long as they live.
#: (A busy one comes to the socket less often as it is.)
_STANDS_BACK: Final = 1e-4
#: Seconds that a connection is not read after a request on it was turned away; twice as long after the
#: next one, up to a bound, until one is answered. Callers that come back at once, instead of when
#: `Retry-After` says, would have the loop turn them away all day, and decide next to nothing.
_BREATH: Final = 0.02
_LONGEST_BREATH: Final = 0.05
#: Pipelined requests that may be under way on one connection before it is read no further.
_AHEAD: Final = 4


def install(protocol: type[BoundedHttp], door: Door, *, siblings: bool) -> None:
    """Make it the protocol of every uvicorn server of this process that chooses one by itself.

    `siblings` says whether other workers take connections from the same socket.
    """
    ScoreLane.siblings = siblings
    auto.AutoHTTPProtocol = partial(protocol, door=door)  # type: ignore[assignment]


class _Due:
    """An answer that a connection waits for, in the order of its requests."""

    __slots__ = ("keep_alive", "written")

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.written = b""


class ScoreLane(BoundedHttp):
    """uvicorn's protocol, for connections to an application that is an `Edge`; see the module."""

    siblings = False

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop, door=door)
        app: Any = config.loaded_app
        if isinstance(app, ProxyHeadersMiddleware):
            app = app.app  # it looks at headers that this lane leaves to it
        plain = isinstance(app, Edge) and not config.root_path and config.limit_concurrency is None
        self._edge: Edge | None = app if plain else None
        self._parts: list[bytes] | None = None  # the body of a request in this lane, while it arrives
        self._late: asyncio.TimerHandle | None = None  # ends the wait for the rest of it
        self._due: deque[_Due] = deque()
        self._ending = False
        self._breath = _BREATH  # how long the next one is
        self._breathing = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.siblings and self._edge is not None and not self._edge.busy:
            time.sleep(_STANDS_BACK)

    # -- the request -------------------------------------------------------------------------

    def take(self) -> None:
        if self._edge is not None and self.url == _PATH and self._takes():
            self._parts = []
        else:
            self.by_asgi()

    def _takes(self) -> bool:
        if (self.cycle is not None and not self.cycle.response_complete) or self.pipeline:
            return False
        length = 0
        for name, value in self.headers:
            if name == b"content-length":
                length = int(value)
            elif name in _OTHERS:
                return False
        return (
            0 < length <= LARGEST_BODY
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
        )

    def before_asgi(self) -> None:
        if self._due:  # uvicorn takes the request behind the answers that are due before its own
            self.cycle = _BUSY  # type: ignore[assignment]  # all that is asked of it is this

    def on_body(self, body: bytes) -> None:
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._parts is None:
            super().on_message_complete()
            return
        self._in_body = False
        self._unset_keepalive_if_required()
        raw, due = b"".join(self._parts), self._arrived(self.parser.should_keep_alive())
        if len(self._due) >= _AHEAD:
            self._regulate()
        assert self._edge is not None
        try:
            self._edge.score(self.headers, self.client, raw, partial(self._answered, due))
        except Problem as problem:
            self._turn_away(due, problem)
        except Exception:  # noqa: BLE001  # as in `Edge`: the caller gets an answer, the log the stack
            self._fail(due)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._parts is not None and self._late is None:
            self._late = self.loop.call_later(BODY_SECONDS, self._too_late)

    def _arrived(self, keep_alive: bool) -> _Due:
        """The request in this lane is whole, or will not be: its answer is due."""
        self._parts = None
        if self._late is not None:
            self._late.cancel()
            self._late = None
        leaving = self._edge is not None and self._edge.leaving
        due = _Due(keep_alive and not self._ending and not leaving)
        self._due.append(due)
        return due

    def _too_late(self) -> None:
        self._turn_away(self._arrived(keep_alive=False), too_late())

    # -- the answer --------------------------------------------------------------------------

    def _answered(self, due: _Due, answer: asyncio.Future[bytes]) -> None:
        assert self._edge is not None
        try:
            body = answer.result()
        except Problem as problem:
            self._turn_away(due, problem)
        except asyncio.CancelledError:
            self.transport.close()
        except Exception:  # noqa: BLE001
            self._fail(due)
        else:
            self._edge.answered()
            self._breath = _BREATH
            self._write(due, 200, body)

    def _turn_away(self, due: _Due, problem: Problem) -> None:
        assert self._edge is not None
        self._edge.turned_away(problem)
        if problem.retry_after is not None and not self._breathing:
            self._breathing = True
            self.loop.call_later(self._breath, self._breathed)
            self._breath = min(2 * self._breath, _LONGEST_BREATH)
        self._write(due, problem.status, problem.json(), problem.retry_after)

    def _breathed(self) -> None:
        self._breathing = False
        self._regulate()

    def _regulate(self) -> None:
        """Read the connection, or do not: while its caller takes a breath, does not read its own answers, or
        is far enough ahead."""
        if self.transport.is_closing() or self._refusal is not None:
            return
        if self._breathing or self.flow.write_paused or len(self._due) >= _AHEAD:
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()

    def _fail(self, due: _Due) -> None:
        _log.exception("a request failed")
        self._write(due, 500, failed().json())

    def _write(self, due: _Due, status: int, body: bytes, retry_after: int | None = None) -> None:
        parts = [self.head(status), _JSON % len(body)]
        if retry_after is not None:
            parts.append(b"retry-after: %d\r\n" % retry_after)
        if not due.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", body)
        self._written(due, b"".join(parts))

    def last_words(self, answer: bytes) -> None:
        if not self._due or self.pipeline:
            super().last_words(answer)
            return
        self._due.append(due := _Due(keep_alive=False))
        self._written(due, answer)

    def _written(self, due: _Due, answer: bytes) -> None:
        """An answer is there: write it, and those that waited for it."""
        due.written = answer
        waiting = self._due
        while waiting and waiting[0].written:
            first = waiting.popleft()
            if self.transport.is_closing():
                continue
            self.transport.write(first.written)
            if not first.keep_alive:
                self.transport.close()
            if waiting:
                self.server_state.total_requests += 1
                self._regulate()
            else:
                self.on_response_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._regulate()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._regulate()

    # -- the end -----------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        if self._parts is not None:
            self._arrived(keep_alive=False)
        self._due.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._parts is not None:
            self._ending = True
        elif self._due:
            self._due[-1].keep_alive = False
        else:
            super().shutdown()
