"""`/metrics`, encoded in a thread, once for all who ask meanwhile: a scrape holds up no decision.

It is behind the scope `metrics` on the service's port. `open_port` gives it a port of its own, which asks
for no token: who reaches it is the network's matter. On a loopback address that is every program of the
machine, and no web page that one of its browsers has open. All workers listen on that port, and each
answers for all of them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from bentos.api.bounded_http import BoundedHttp, Door, bounds_of
from bentos.api.exchange import Receive, Send, respond
from bentos.api.local_callers import LocalCallers, is_loopback, listed
from bentos.base.problem import Problem
from stores.settings import Settings, SettingsError

TEXT: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
#: Enough for every Prometheus server of a company, and for nobody else.
_CONNECTIONS: Final = 32


class MetricsPage:
    """The text, from `encode`, which is run in a thread: one at a time, and shared by those who wait."""

    def __init__(self, encode: Callable[[], bytes]) -> None:
        self._encode = encode
        self._local: LocalCallers | None = None
        self._under_way: asyncio.Task[bytes] | None = None

    async def text(self) -> bytes:
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(asyncio.to_thread(self._encode))
        return await asyncio.shield(self._under_way)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """The ASGI application of a port of its own: `GET /metrics` and nothing else."""
        if scope["path"] != "/metrics" or scope["method"] != "GET":
            problem = Problem(404, "(path)", "is not served; GET /metrics is")
            await respond(send, 404, problem.json(), more=[(b"connection", b"close")])
            return
        if self._local is not None:
            try:
                self._local.check(scope["headers"], (scope.get("client") or (None,))[0])
            except Problem as problem:
                await respond(send, problem.status, problem.json(), more=[(b"connection", b"close")])
                return
        await respond(send, 200, await self.text(), kind=TEXT)

    def only_local(self, chosen: Settings) -> None:
        """Answer local programs alone on the port of its own."""
        self._local = LocalCallers(listed(chosen.http.hosts), listed(chosen.http.origins))


async def open_port(page: MetricsPage, refused: Callable[[str], None], chosen: Settings) -> asyncio.Server:
    """Serve `page` on the port of the settings, beside the other workers that do (SO_REUSEPORT)."""
    host, port = chosen.http.metrics_host, chosen.http.metrics_port
    if is_loopback(host):
        page.only_local(chosen)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        config = Config(page, log_config=None, lifespan="off", proxy_headers=False, server_header=False)
        config.load()
        few = bounds_of(chosen)._replace(connections=_CONNECTIONS, peer_connections=_CONNECTIONS)
        make = partial(BoundedHttp, config, ServerState(), {}, door=Door(few, refused, Counter()))
        return await asyncio.get_running_loop().create_server(make, sock=listener)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"TOLLGATE_SERVE_METRICS_PORT: {host}:{port} cannot be used: {error.strerror}"
        ) from None


def bentoml_metrics() -> bytes:
    """BentoML's own figures of the routes that it answers, of all workers; none outside `bentoml serve`."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    enabled = BentoMLContainer.api_server_config.metrics.enabled.get()
    if not enabled or "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return b""
    text: bytes = BentoMLContainer.metrics_client.get().generate_latest()  # type: ignore[no-untyped-call]
    return text
