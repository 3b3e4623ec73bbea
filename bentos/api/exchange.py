"""A request and its answer over ASGI: what its headers declare, its body within bounds, the response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from bentos.base.problem import Problem
from fraud.contract.transaction import LARGEST_BODY

Header = tuple[bytes, bytes]
Headers = list[Header]
Peer = tuple[str, int] | None
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: A caller that takes longer to send its body is cut off.
BODY_SECONDS: Final = 5.0
_JSON: Final = (b"content-type", b"application/json")


def typed(headers: Headers) -> None:
    """Raise `Problem` 415 unless the body is said to be plain JSON."""
    known = False
    for header, value in headers:
        if header == b"content-type":
            known = value.partition(b";")[0].strip().lower() == b"application/json"
            if not known:
                break
        elif header == b"content-encoding" and value.lower() != b"identity":
            raise Problem(415, "content-encoding", "should be absent", kind="type")
    if not known:
        raise Problem(415, "content-type", "should be application/json", kind="type")


def declared(headers: Headers, largest: int) -> None:
    """Raise `Problem` 413 for a body that is said to be larger than `largest` bytes."""
    for header, value in headers:
        if (header == b"content-length" and value.isdigit() and int(value) > largest) or (
            header == b"transfer-encoding" and not largest
        ):
            raise _too_large(largest)


def unread(headers: Headers) -> bool:
    """Whether a request that is refused may bring more of a body than one cares to read."""
    return any(
        header == b"transfer-encoding"
        or (header == b"content-length" and not (value.isdigit() and int(value) <= LARGEST_BODY))
        for header, value in headers
    )


def _too_large(largest: int) -> Problem:
    return Problem(413, "(body)", f"larger than {largest} bytes", kind="size")


def too_late() -> Problem:
    """What is said to a caller whose body does not arrive."""
    return Problem(408, "(body)", f"took longer than {BODY_SECONDS:g} seconds to arrive")


def failed() -> Problem:
    """What is said to a caller whose request met an error of ours."""
    return Problem(500, "(service)", "failed; it has been logged")


async def read_body(receive: Receive, largest: int) -> bytes:
    """The request's body; raise `Problem`: 413 as soon as it is too large, 408 when it does not arrive."""
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem(400, "(body)", "ended early")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > largest:
                    raise _too_large(largest)
                more = message.get("more_body", False)
    except TimeoutError:
        raise too_late() from None
    return b"".join(parts)


async def refuse(send: Send, problem: Problem, *, close: bool, allow: str | None = None) -> None:
    more = [] if allow is None else [(b"allow", allow.encode())]
    if problem.retry_after is not None:
        more.append((b"retry-after", b"%d" % problem.retry_after))
    if close or problem.status in (408, 413):
        more.append((b"connection", b"close"))  # the rest of the body is not wanted
    await respond(send, problem.status, problem.json(), more=more)


async def respond(
    send: Send, status: int, body: bytes, *, kind: tuple[bytes, bytes] = _JSON, more: Iterable[Header] = ()
) -> None:
    headers = [kind, (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
