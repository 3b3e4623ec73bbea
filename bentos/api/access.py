"""Who may call: bearer tokens with scopes, compared in constant time, and a rate per client.

The tokens file is JSON: ``{"clients": [{"name": "checkout", "sha256": ["<hex of the token's
SHA-256>", ...], "scopes": ["score"], "rate": 500}]}``; a client with the scope ``label`` has
``"label_sources": ["analyst"]`` (and ``"label_rate": 200`` a second), too. It holds digests, never
tokens; several digests per client let tokens rotate. It is read again when it changes. A file that is
broken or gone leaves the tokens read before in force (fail static: a slip of an editor must not stop
every payment) and `tokens_refused` at 1 until it is right, so nobody's token is revoked by deleting the
file: write one without the client. Without a file in the settings only local callers are served
(`local_callers`).

Transaction ids are a client's own (`bentos.base.caller`). Clients that name the same ``"ids": "shop"``
share an id space: a second gateway, or who reports chargebacks on its payments. ``"ids": "*"``, for
clients that only report, takes ids as they stand in the log, of every client.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from bentos.api.local_callers import LocalCallers, listed
from bentos.base.caller import LOCAL, Caller
from bentos.base.metrics import Metrics
from bentos.base.problem import Problem
from bentos.log.labels import Reporter, Source
from stores.settings import Settings

_log = logging.getLogger("tollgate.access")
#: `replay` lets a client that may score state times of the past (`fraud.contract.times`).
Scope = Literal["score", "replay", "label", "outcome", "admin", "metrics"]
#: What a route asks for: a scope, or no more than a token of some client.
Need = Scope | Literal["any"]

#: In the tokens file, the `ids` of who reports on transactions of every client.
EVERY_SPACE: Final = "*"


class _Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,32}\Z")]
    sha256: tuple[str, ...]
    scopes: tuple[Scope, ...]
    rate: int | None = None
    #: What a client with the scope `label` may name as a label's source, and its labels a second.
    label_sources: tuple[Source, ...] = ()
    label_rate: int = 200
    ids: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9._-]{1,32}|[*])\Z")] | None = None

    @property
    def caller(self) -> Caller:
        """The client as the engine knows it."""
        ids = "" if self.ids == EVERY_SPACE else self.ids or self.name
        return Caller(self.name, ids, "replay" in self.scopes)


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

    def __init__(
        self,
        path: Path | None,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        local: LocalCallers | None = None,
        *,
        local_replays: bool = False,
    ) -> None:
        self._path = path
        self._local_caller = LOCAL._replace(replays=local_replays)
        self._local = local or LocalCallers()
        self._rate = rate
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
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
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return
            self._seen = seen
            clients = _decode(self._path.read_bytes()).clients
            pairs = [(bytes.fromhex(digest), client) for client in clients for digest in client.sha256]
            if any(client.ids == EVERY_SPACE and "score" in client.scopes for client in clients):
                raise ValueError("a client that sends transactions has an id space of its own")
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            if isinstance(error, OSError):
                self._seen = None  # the same file may come back
            reason = f"{self._path.name}: {type(error).__name__}"
            if reason != self.error:
                _log.error("a tokens file was refused, the one before stays", extra={"reason": reason})
            self.error = reason
            return
        self.error = None
        self._clients = pairs
        self._buckets.clear()

    def look(self, metrics: Metrics) -> None:
        """Once a second: read the file again if it changed, and say whether it is refused."""
        self.refresh()
        metrics.gauge("tokens_refused", self.error is not None)

    def client(self, headers: list[tuple[bytes, bytes]], peer: str | None, needed: Need) -> Caller:
        """The caller who may do `needed`; raise `Problem` 401 or 403."""
        if self._path is None:
            self._local.check(headers, peer)
            return self._local_caller
        token, given = b"", 0
        for name, value in headers:
            if name == b"authorization":
                given += 1
                scheme, _, rest = value.partition(b" ")
                token = rest.strip() if scheme.lower() == b"bearer" else b""
        if given > 1:  # a proxy may have looked at the other one
            raise Problem(401, "authorization", "should be given once", kind="token")
        if not token:
            raise Problem(401, "authorization", "should be a bearer token", kind="token")
        digest = hashlib.sha256(token).digest()
        found = None
        for known, client in self._clients:  # all of them: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = client
        if found is None:
            raise Problem(401, "authorization", "is not a token of any client", kind="token")
        if needed not in found.scopes and not (
            needed == "any" or (needed == "metrics" and "admin" in found.scopes)
        ):
            raise Problem(403, "authorization", f"lacks the scope {needed}", kind="scope")
        return found.caller

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

    def reporter(self, caller: Caller) -> Reporter:
        """Who the client is to the labels that it sends; without tokens local callers name any source."""
        if self._path is None:
            return Reporter(caller.name, admin=True)
        client = next((client for _, client in self._clients if client.name == caller.name), None)
        if client is None:
            return Reporter(caller.name, frozenset())
        admin = "admin" in client.scopes
        return Reporter(
            caller.name,
            frozenset(client.label_sources),
            admin,
            lambda number: self._labels(client, number),
            caller.ids,
        )

    def _labels(self, client: _Client, number: int) -> None:
        key = f"{client.name}\0labels"
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(client.label_rate, self._clock)
        if not bucket.take(number):
            raise Problem(429, "(client)", "sends labels faster than its label_rate", retry_after=1)


def open_access(chosen: Settings) -> Access:
    """The clients of the settings."""
    local = LocalCallers(listed(chosen.http.hosts), listed(chosen.http.origins))
    return Access(
        chosen.serve.tokens_file, chosen.serve.client_rate, local=local, local_replays=chosen.serve.replay
    )
