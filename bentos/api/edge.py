"""The outermost ASGI layer: answers the hot routes itself and guards the others.

BentoML's middlewares (metrics, OpenTelemetry, access log, timeout, context, router) cost several
times the work of scoring. `EdgeService.to_asgi` puts this layer around BentoML's application, so
that `POST /v1/score` is answered before any of them under plain `bentoml serve`; everything else
passes through, `/v1/...` only after the same checks of caller, size and type. What is plain
enough does not even come here: see `bentos.api.score_lane`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any, Final

import bentoml
import msgspec

from bentos.api.access import Scope
from bentos.api.explain import explain
from bentos.api.status import status
from bentos.base.problem import Problem
from bentos.scoring.engine import LARGEST_BULK_ITEMS, Engine, Tell
from fraud.contract.transaction import LARGEST_BODY
from stores.settings import settings

_log = logging.getLogger("tollgate.edge")

Headers = list[tuple[bytes, bytes]]
Peer = tuple[str, int] | None
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: Bytes of a bulk request: 1,024 transactions at their largest.
LARGEST_BULK: Final = 1_500_000
LARGEST_LABELS: Final = 400_000
#: A caller that takes longer to send its body is cut off.
BODY_SECONDS: Final = 5.0
SCORE_PATH: Final = "/v1/score"
BULK_PATH: Final = "/v1/score/batch"
_JSON: Final = (b"content-type", b"application/json")
_TEXT: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_encode = msgspec.json.Encoder().encode


class EdgeService(bentoml.Service):  # type: ignore[misc]  # BentoML ships no stubs for it
    """A BentoML service whose hot routes are answered by `Edge`."""

    engine: Engine | None = None

    def to_asgi(self, is_main: bool = True) -> Any:
        from bentos.api.score_lane import install  # it knows `Edge`

        app = super().to_asgi(is_main=is_main)
        if not is_main:
            return app
        install(siblings=settings().serve.workers > 1)
        return Edge(app, lambda: self.engine)


class Edge:
    """The ASGI application around BentoML's."""

    def __init__(self, app: App, engine: Callable[[], Engine | None]) -> None:
        self._app = app
        self._engine = engine
        self._handlers: dict[str, Callable[..., Awaitable[None]]] = {
            SCORE_PATH: self._score,
            BULK_PATH: self._bulk,
            "/v1/labels": self._labels,
            "/v1/explain": self._explain,
            "/v1/status": self._status,
            "/metrics": self._metrics,
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["path"]) if scope["type"] == "http" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        engine = self._engine()
        path = scope["path"]
        try:
            if engine is None:
                raise _starting()
            await handler(engine, scope, receive, send)
        except Problem as problem:
            if engine is not None:
                engine.metrics.count("requests_total", path, str(problem.status))
            await _respond(send, problem.status, problem.json(), retry_after=problem.retry_after)
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001  # the caller gets an answer, the log the stack without the input
            _log.exception("a request failed")
            await _respond(send, 500, failed().json())

    async def _score(
        self, engine: Engine, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        client = _admit(engine, scope, "score")
        raw = await _body(scope, receive, LARGEST_BODY)
        arrived = perf_counter()
        engine.access.spend(client)
        answer = await engine.score(raw, arrived)
        engine.metrics.count("requests_total", SCORE_PATH, "200")
        await _respond(send, 200, answer)

    def begin(self, headers: Headers, peer: Peer, raw: bytes, tell: Tell) -> None:
        """Tell the answer to a whole `POST /v1/score` once it is there; it or this call raises `Problem`."""
        engine, arrived = self._engine(), perf_counter()
        if engine is None:
            raise _starting()
        engine.access.spend(_caller(engine, headers, peer, "score"))
        engine.begin(raw, arrived, tell)

    @property
    def busy(self) -> bool:
        """Whether transactions wait or are being decided."""
        engine = self._engine()
        return engine is not None and engine.in_flight > 0

    def count(self, status: int) -> None:
        """Count a request that `begin` was asked to answer."""
        engine = self._engine()
        if engine is not None:
            engine.metrics.count("requests_total", SCORE_PATH, str(status))

    async def _bulk(
        self, engine: Engine, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        """Check the caller, then let BentoML's batchable API answer."""
        client = _admit(engine, scope, "score")
        raw = await _body(scope, receive, LARGEST_BULK)
        items = split_bulk(raw)
        if engine.bulk_full:
            raise Problem(503, "(service)", "too many bulk requests wait already", retry_after=1)
        engine.access.spend(client, len(items))
        engine.metrics.count("requests_total", BULK_PATH, "200")
        pending: list[Message] = [{"type": "http.request", "body": raw, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    async def _labels(
        self, engine: Engine, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        _admit(engine, scope, "label")
        raw = await _body(scope, receive, LARGEST_LABELS)
        accepted = await engine.take_labels(raw)
        engine.metrics.count("requests_total", "/v1/labels", "202")
        await _respond(send, 202, _encode({"accepted": accepted}))

    async def _explain(
        self, engine: Engine, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        client = _admit(engine, scope, "score")
        raw = await _body(scope, receive, LARGEST_BODY)
        engine.access.spend(client)
        answer = await explain(engine, raw)
        engine.metrics.count("requests_total", "/v1/explain", "200")
        await _respond(send, 200, _encode(answer))

    async def _status(
        self, engine: Engine, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        if scope["method"] != "GET":
            raise Problem(405, "(method)", "should be GET")
        peer = scope.get("client")
        engine.access.client(scope["headers"], peer[0] if peer else None, "admin")
        await _respond(send, 200, _encode(status(engine)))

    async def _metrics(
        self, engine: Engine, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        if scope["method"] != "GET":
            raise Problem(405, "(method)", "should be GET")
        text = engine.metrics_text().encode()
        # BentoML's own figures of the other routes, when it keeps them.
        await _respond(send, 200, text + _bentoml_metrics(), kind=_TEXT)


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


def _admit(engine: Engine, scope: MutableMapping[str, Any], needed: Scope) -> str:
    """The caller's name; raise `Problem` for a wrong method, type or caller."""
    if scope["method"] != "POST":
        raise Problem(405, "(method)", "should be POST")
    return _caller(engine, scope["headers"], scope.get("client"), needed)


def _caller(engine: Engine, headers: Headers, peer: Peer, needed: Scope) -> str:
    """The caller's name; raise `Problem` for a wrong type or caller."""
    name = engine.access.client(headers, peer[0] if peer else None, needed)
    for header, value in headers:
        if header == b"content-type":
            if value.partition(b";")[0].strip().lower() != b"application/json":
                raise Problem(415, "content-type", "should be application/json")
        elif header == b"content-encoding" and value.lower() != b"identity":
            raise Problem(415, "content-encoding", "should be absent")
    return name


def too_late() -> Problem:
    """What is said to a caller whose body does not arrive."""
    return Problem(408, "(body)", f"took longer than {BODY_SECONDS:g} seconds to arrive")


def failed() -> Problem:
    """What is said to a caller whose request met an error of ours."""
    return Problem(500, "(service)", "failed; it has been logged")


def _starting() -> Problem:
    return Problem(503, "(service)", "is starting", retry_after=1)


async def _body(scope: MutableMapping[str, Any], receive: Receive, largest: int) -> bytes:
    """The request's body; raise `Problem` 413 as soon as it is known to be too large."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        for header, value in scope["headers"]:
            if header == b"content-length" and value.isdigit() and int(value) > largest:
                raise Problem(413, "(body)", f"larger than {largest} bytes")
        parts, size = [body], len(body)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while message.get("more_body", False):
                    if size > largest:
                        raise Problem(413, "(body)", f"larger than {largest} bytes")
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "(body)", "ended early")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
        except TimeoutError:
            raise too_late() from None
        body = b"".join(parts)
    if len(body) > largest:
        raise Problem(413, "(body)", f"larger than {largest} bytes")
    return body


async def _respond(
    send: Send, status: int, body: bytes, *, kind: tuple[bytes, bytes] = _JSON, retry_after: int | None = None
) -> None:
    headers = [kind, (b"content-length", b"%d" % len(body))]
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % retry_after))
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not wanted
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _bentoml_metrics() -> bytes:
    from bentoml._internal.configuration.containers import BentoMLContainer

    if not BentoMLContainer.api_server_config.metrics.enabled.get():
        return b""
    text: bytes = BentoMLContainer.metrics_client.get().generate_latest()  # type: ignore[no-untyped-call]
    return text
