"""The outermost ASGI layer: answers the hot routes itself and guards the others.

BentoML's middlewares (metrics, OpenTelemetry, access log, timeout, context, router) cost several
times the work of scoring. This layer stands around BentoML's application (`bentos.service`), so
that `POST /v1/score` is answered before any of them under plain `bentoml serve`. It is also the only
way in: an exact list of paths passes, after the checks of method, caller, type and size that its entry
asks for, and every other path is 404 before anything is read or counted by name. What is plain enough
does not even come here: see `bentos.api.score_lane`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Literal, NamedTuple

import msgspec

from bentos.api.access import Access, Need
from bentos.api.admitted import admitted
from bentos.api.exchange import (
    App,
    Headers,
    Message,
    Peer,
    Receive,
    Send,
    declared,
    failed,
    read_body,
    refuse,
    respond,
    typed,
    unread,
)
from bentos.api.explain import explain, explain_decision
from bentos.api.metrics_page import TEXT, MetricsPage, bentoml_metrics
from bentos.api.status import status
from bentos.base.caller import LOCAL, Caller
from bentos.base.problem import Problem
from bentos.models.deployment import WITHOUT_MODEL
from bentos.scoring.engine import LARGEST_BULK_ITEMS, Engine, Tell
from fraud.contract.transaction import LARGEST_BODY

_log = logging.getLogger("tollgate.edge")

#: Bytes of a bulk request: 1,024 transactions at their largest.
LARGEST_BULK: Final = 1_500_000
LARGEST_LABELS: Final = 400_000
SCORE_PATH: Final = "/v1/score"
BULK_PATH: Final = "/v1/score/batch"
DOCUMENT_PATH: Final = "/docs.json"
READY_PATH: Final = "/readyz"
HEALTH_PATHS: Final = ("/healthz", "/livez", READY_PATH)
_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")
_OWN_ONLY: Final = (
    b"content-security-policy",
    b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-src 'none'",
)
_encode = msgspec.json.Encoder().encode


class Call(NamedTuple):
    """A request that was let in: by whom, its whole body, and the ASGI triple."""

    engine: Engine
    client: Caller
    raw: bytes
    scope: MutableMapping[str, Any]
    receive: Receive
    send: Send


class Route(NamedTuple):
    """A path: by which methods and for whom it exists, and what answers.

    `needed` is None where anybody may ask; `largest` counts bytes of the body. An `own` route is answered
    here (and counted by status), the others by BentoML's application.
    """

    methods: tuple[str, ...]
    needed: Need | None
    largest: int
    answer: Callable[[Call], Awaitable[None]] | None = None
    own: bool = True


def _words(status: int, model: bool) -> bytes:
    """What /readyz says with this status."""
    if status != 200:  # TOLLGATE_SERVE_NEEDS_MODEL
        return f"not ready: {WITHOUT_MODEL}\n".encode()
    return b"ready\n" if model else f"ready, but {WITHOUT_MODEL}\n".encode()


class Edge:
    """The ASGI application around BentoML's: an exact list of paths, and 404 for every other one.

    A path is what the request line says, byte by byte: nothing is decoded, folded or normalised before
    it is looked up. `documents` says who may read the description of the service: `clients` (any
    token; local callers where there are none), `open` (anybody) or `off`; `document` makes the OpenAPI
    document in place of BentoML's. `observed` wraps what answers the paths that exist.
    """

    def __init__(
        self,
        app: App,
        engine: Callable[[], Engine | None],
        access: Access,
        *,
        documents: Literal["clients", "open", "off"] = "clients",
        document: Callable[[], bytes] | None = None,
        observed: Callable[[App], App] | None = None,
    ) -> None:
        self._app = app
        self._engine = engine
        self._access = access
        self._known = observed(self._http) if observed is not None else self._http
        self.page = MetricsPage(self._metrics_text)
        post, get, look = ("POST",), ("GET",), ("GET", "HEAD")
        self._routes = {
            SCORE_PATH: Route(post, "score", LARGEST_BODY, self._score),
            BULK_PATH: Route(post, "score", LARGEST_BULK, self._bulk),
            "/v1/labels": Route(post, "label", LARGEST_LABELS, self._labels),
            "/v1/outcomes": Route(post, "outcome", LARGEST_LABELS, self._outcomes),
            "/v1/explain": Route(("GET", "POST"), "score", LARGEST_BODY, self._explain),
            "/v1/status": Route(get, "admin", 0, self._status),
            "/metrics": Route(get, "metrics", 0, self._metrics),
        } | {path: Route(look, None, 0, own=False) for path in HEALTH_PATHS}
        if documents != "off":
            needed: Need | None = "any" if documents == "clients" else None
            self._routes |= {path: Route(look, needed, 0, own=False) for path in document_paths()}
            if document is not None:
                self._routes[DOCUMENT_PATH] = Route(look, needed, 0, self._document)
        self._described = document

    @property
    def routes(self) -> Mapping[str, Route]:
        """The paths that exist, for whom."""
        return self._routes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            self.refused("upgrade")
            await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"]
        if path not in self._routes or scope.get("raw_path") not in (None, path.encode()):
            self.refused("path")
            await refuse(send, Problem(404, "(path)", "is not served"), close=unread(scope["headers"]))
            return
        with admitted(None):
            await self._known(scope, receive, _closing(send) if self.leaving else send)

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        engine, path = self._engine(), scope["path"]
        route, body_is_here = self._routes[path], False
        try:
            if scope["method"] not in route.methods:
                raise Problem(405, "(method)", f"should be {' or '.join(route.methods)}", kind="method")
            if not route.own:
                if route.needed is not None:
                    self._caller(scope["headers"], scope.get("client"), route.needed)
                declared(scope["headers"], 0)
                await self._app(scope, receive, self._sent(path, send))
                return
            engine = _started(engine)
            client = LOCAL
            if route.needed is not None:
                client = self._caller(scope["headers"], scope.get("client"), route.needed)
            largest = 0 if scope["method"] in ("GET", "HEAD") else route.largest
            if largest:
                typed(scope["headers"])
            declared(scope["headers"], largest)
            raw = await read_body(receive, largest) if largest else b""
            body_is_here = True
            assert route.answer is not None
            await route.answer(Call(engine, client, raw, scope, receive, send))
        except Problem as problem:
            self._count(path if route.own else None, problem)
            close = not body_is_here and unread(scope["headers"])
            allow = ", ".join(route.methods) if problem.status == 405 else None
            await refuse(send, problem, close=close, allow=allow)
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001  # the caller gets an answer, the log the stack without the input
            _log.exception("a request failed")
            await respond(send, 500, failed().json())

    def _sent(self, path: str, send: Send) -> Send:
        """How BentoML's answer to `path` leaves."""
        if path == "/":
            return _without_strangers(send)
        return self._in_words(send) if path == READY_PATH else send

    def _in_words(self, send: Send) -> Send:
        """Readiness says with what: a service without a model should not look as if it had one."""
        engine = self._engine()
        if engine is None or not engine.ready:
            return send
        champion = engine.scorer.scores.room.current.champion

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await respond(
                    send, message["status"], _words(message["status"], champion is not None), kind=_PLAIN
                )

        return answer

    def _caller(self, headers: Headers, peer: Peer, needed: Need) -> Caller:
        """The caller; raise `Problem` for a caller who may not."""
        return self._access.client(headers, peer[0] if peer else None, needed)

    def refused(self, kind: str) -> None:
        """Count what was refused at the door."""
        engine = self._engine()
        if engine is not None:
            engine.metrics.count("http_refused_total", kind)

    def _metrics_text(self) -> bytes:
        """Of all workers, with BentoML's own figures of the routes that it answers."""
        engine = self._engine()
        own = engine.metrics_text() if engine is not None else b""
        return own + bentoml_metrics()

    def _count(self, path: str | None, problem: Problem) -> None:
        engine = self._engine()
        if engine is None:
            return
        if path is not None:
            engine.metrics.count("requests_total", path, str(problem.status))
        if problem.kind is not None:
            engine.metrics.count("http_refused_total", problem.kind)

    async def _score(self, call: Call) -> None:
        answer = await self._queue(call.engine, call.client, call.raw, perf_counter())
        self.answered()
        await respond(call.send, 200, answer)

    def score(self, headers: Headers, peer: Peer, raw: bytes, tell: Tell) -> None:
        """Tell the answer to a whole `POST /v1/score` once it is there; it or this call raises `Problem`."""
        arrived = perf_counter()
        engine = _started(self._engine())
        client = self._caller(headers, peer, "score")
        typed(headers)
        self._queue(engine, client, raw, arrived, tell)

    def _queue(
        self, engine: Engine, client: Caller, raw: bytes, arrived: float, tell: Tell | None = None
    ) -> Awaitable[bytes]:
        self._access.spend(client.name)
        return engine.score(raw, arrived, client, tell)

    @property
    def leaving(self) -> bool:
        """Whether connections are to be closed with their next answer."""
        engine = self._engine()
        return engine is not None and engine.leaving

    @property
    def busy(self) -> bool:
        """Whether transactions wait or are being decided."""
        engine = self._engine()
        return engine is not None and engine.in_flight > 0

    def answered(self) -> None:
        """Count a transaction that got its answer."""
        engine = self._engine()
        if engine is not None:
            engine.metrics.count("requests_total", SCORE_PATH, "200")

    def turned_away(self, problem: Problem) -> None:
        """Count a transaction that was refused by `score`, or later."""
        self._count(SCORE_PATH, problem)

    async def _bulk(self, call: Call) -> None:
        """Check the items, then let BentoML's batchable API answer."""
        engine, items = call.engine, split_bulk(call.raw)
        if engine.bulk_full:
            raise Problem(503, "(service)", "too many bulk requests wait already", retry_after=1)
        self._access.spend(call.client.name, len(items))
        engine.metrics.count("requests_total", BULK_PATH, "200")
        pending: list[Message] = [{"type": "http.request", "body": call.raw, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await call.receive()

        with admitted(call.client):
            await self._app(call.scope, replay, call.send)

    async def _labels(self, call: Call) -> None:
        accepted = await call.engine.take_labels(call.raw, self._access.reporter(call.client))
        call.engine.metrics.count("requests_total", "/v1/labels", "202")
        await respond(call.send, 202, _encode({"accepted": accepted}))

    async def _outcomes(self, call: Call) -> None:
        accepted = await call.engine.take_outcomes(call.raw, self._access.reporter(call.client))
        call.engine.metrics.count("requests_total", "/v1/outcomes", "202")
        await respond(call.send, 202, _encode({"accepted": accepted}))

    async def _explain(self, call: Call) -> None:
        self._access.spend(call.client.name)
        if call.scope["method"] == "GET":
            answer = await explain_decision(call.engine, call.client, call.scope.get("query_string", b""))
        else:
            answer = await explain(call.engine, call.client, call.raw)
        call.engine.metrics.count("requests_total", "/v1/explain", "200")
        await respond(call.send, 200, _encode(answer))

    async def _status(self, call: Call) -> None:
        await respond(call.send, 200, _encode(status(call.engine, self._access.error)))

    async def _document(self, call: Call) -> None:
        assert self._described is not None
        body = self._described() if call.scope["method"] == "GET" else b""
        await respond(call.send, 200, body)

    async def _metrics(self, call: Call) -> None:
        await respond(call.send, 200, await self.page.text(), kind=TEXT)


def document_paths() -> tuple[str, ...]:
    """The paths of BentoML's description of the service: a page, what it is made of, and two documents."""
    from bentoml._internal import server

    assets = Path(server.__file__).parent / "static_content"
    return ("/", "/docs.json", "/schema.json", *(f"/static_content/{file.name}" for file in assets.iterdir()))


def split_bulk(raw: bytes) -> list[msgspec.Raw]:
    """The items of a bulk request, undecoded; raise `Problem`."""
    try:
        items = _split(raw)
    except msgspec.ValidationError:
        raise Problem(422, "(body)", "should be a JSON array of transactions") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "(body)", "is not valid JSON") from None
    if not 1 <= len(items) <= LARGEST_BULK_ITEMS:
        raise Problem(422, "(body)", f"should hold 1 to {LARGEST_BULK_ITEMS} transactions")
    return items


_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _started(engine: Engine | None) -> Engine:
    if engine is None:
        raise Problem(503, "(service)", "is starting", retry_after=1)
    return engine


def _closing(send: Send) -> Send:
    """As `send`, of an answer after which the connection closes."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", []), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return closing


def _without_strangers(send: Send) -> Send:
    """BentoML's page asks another company's server for a script: browsers are told not to."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), _OWN_ONLY]
        await send(message)

    return answer
