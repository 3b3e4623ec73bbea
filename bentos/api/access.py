"""Who may call: bearer tokens with scopes, compared in constant time, and a rate per client.

The tokens file is JSON: ``{"clients": [{"name": "checkout", "sha256": ["<hex of the token's
SHA-256>", ...], "scopes": ["score"], "rate": 500}]}``. It holds digests, never tokens; several
digests per client let tokens rotate. It is read again when it changes; a broken file leaves the
one before in force. Without a file only callers on the loopback interface are served.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from bentos.base.problem import Problem

_log = logging.getLogger("tollgate.access")
Scope = Literal["score", "label", "admin"]
_LOOPBACK: Final = ("127.0.0.1", "::1")


class _Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    sha256: tuple[str, ...]
    scopes: tuple[Scope, ...]
    rate: int | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clients: tuple[_Client, ...]


_decode = msgspec.json.Decoder(_File).decode


class _Bucket:
    """Tokens for one second of a client's rate."""

    __slots__ = ("_clock", "_left", "_rate", "_seen")

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._left = float(rate)
        self._clock = clock
        self._seen = clock()

    def take(self, number: int) -> bool:
        now = self._clock()
        self._left = min(float(self._rate), self._left + (now - self._seen) * self._rate)
        self._seen = now
        # A bulk larger than the rate passes when the bucket is full, and is paid off afterwards.
        if self._left < min(number, self._rate):
            return False
        self._left -= number
        return True


class Access:
    """The clients in force. `check` is called for every request."""

    def __init__(self, path: Path | None, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._rate = rate
        self._clock = clock
        self._seen: tuple[int, int] | None = None
        self._clients: list[tuple[bytes, _Client]] = []
        self._buckets: dict[str, _Bucket] = {}
        self.error: str | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it changed."""
        if self._path is None:
            return
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size)
            if seen == self._seen:
                return
            self._seen = seen
            clients = _decode(self._path.read_bytes()).clients
            pairs = [(bytes.fromhex(digest), client) for client in clients for digest in client.sha256]
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            self.error = f"{self._path.name}: {type(error).__name__}"
            _log.error("a tokens file was refused, the one before stays", extra={"reason": self.error})
            return
        self.error = None
        self._clients = pairs
        self._buckets.clear()

    def client(self, headers: list[tuple[bytes, bytes]], peer: str | None, needed: Scope) -> str:
        """The name of the caller who may do `needed`; raise `Problem` 401 or 403."""
        if self._path is None:
            # No address: a local socket, which the file system guards.
            if peer is None or peer in _LOOPBACK:
                return "loopback"
            raise Problem(401, "authorization", "no tokens are configured: only loopback callers are served")
        token = b""
        for name, value in headers:
            if name == b"authorization":
                scheme, _, rest = value.partition(b" ")
                token = rest.strip() if scheme.lower() == b"bearer" else b""
        if not token:
            raise Problem(401, "authorization", "should be a bearer token")
        digest = hashlib.sha256(token).digest()
        found = None
        for known, client in self._clients:  # all of them: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = client
        if found is None:
            raise Problem(401, "authorization", "is not a token of any client")
        if needed not in found.scopes:
            raise Problem(403, "authorization", f"lacks the scope {needed}")
        return found.name

    def spend(self, name: str, number: int = 1) -> None:
        """Count `number` transactions of the client; raise `Problem` 429 above its rate."""
        bucket = self._buckets.get(name)
        if bucket is None:
            rate = next((client.rate for _, client in self._clients if client.name == name), None)
            rate = self._rate if rate is None else rate
            if rate <= 0:
                return
            bucket = self._buckets[name] = _Bucket(rate, self._clock)
        if not bucket.take(number):
            raise Problem(429, "(client)", "sends faster than its rate", retry_after=1)
