"""TLS before servers that were built without it, in a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from tests.certificates import Authority

_NOTHING: Mapping[bytes, bytes] = {}


@contextmanager
def tls_before(
    port: int,
    trusted: Authority,
    *,
    at: int = 0,
    clients: bool = False,
    mapped: Mapping[bytes, bytes] = _NOTHING,
) -> Iterator[int]:
    """The loopback port that speaks TLS for `port`; with `clients` it asks for their certificates.

    `mapped` replaces bytes in answers, as a network does that knows a server by another address.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*trusted.issue(f"server-{port}"))
    if clients:
        context.load_verify_locations(trusted.certificate)
        context.verify_mode = ssl.CERT_REQUIRED

    async def pipe(
        source: asyncio.StreamReader, target: asyncio.StreamWriter, change: Mapping[bytes, bytes]
    ) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while data := await source.read(65_536):
                for old, new in change.items():
                    data = data.replace(old, new)
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, inner_writer, _NOTHING), pipe(inner_reader, writer, mapped))

    ready, found = threading.Event(), []
    loop = asyncio.new_event_loop()

    async def run(stop: asyncio.Event) -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", at, ssl=context)
        found.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run(stop)), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
