"""Who is local where no tokens are: a program of this machine, not a web page and not a proxy's client.

The loopback address alone does not tell: a browser of this machine sends what any web page asks for (by
DNS rebinding under a name of the page's own), and a reverse proxy forwards the whole world. A page names
itself in `Origin` or comes under a foreign `Host`; a proxy says so in its headers, or forwards the `Host`
that the world knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bentos.base.problem import Problem

_ADDRESSES: Final = frozenset(("127.0.0.1", "::1", "::ffff:127.0.0.1"))
_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
#: Headers by which a proxy says that it is one.
_PROXIES: Final = frozenset((b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"forwarded", b"via"))
#: `Host` headers that were found to be right, at most; callers choose the port in them.
_REMEMBERED: Final = 64


class LocalCallers:
    """Tells local callers from others; `hosts` and `origins` are let in beside the loopback's own names."""

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._hosts = frozenset(name.lower().encode() for name in (*_NAMES, *hosts))
        self._origins = frozenset(origin.lower().encode() for origin in origins)
        self._right: set[bytes] = set()

    def check(self, headers: list[tuple[bytes, bytes]], peer: str | None) -> None:
        """Raise `Problem` 401 or 403 unless the request is a local program's own.

        No `peer` means a local socket, which the file system guards.
        """
        if peer is not None and peer not in _ADDRESSES:
            raise _not_local("token")
        hosts = 0
        for name, value in headers:
            if name == b"host":
                hosts += 1
                if value not in self._right:
                    self._check_host(value)
            elif name == b"origin":
                if value.lower() not in self._origins:
                    raise Problem(
                        403,
                        "origin",
                        "is a web page that TOLLGATE_SERVE_ORIGINS does not list",
                        kind="origin",
                    )
            elif name in _PROXIES:
                raise _not_local("proxied")
        if hosts != 1:
            raise Problem(403, "host", "should be there once", kind="host")

    def _check_host(self, value: bytes) -> None:
        name, colon, port = value.lower().rpartition(b":")
        if not colon or not port.isdigit():
            name = value.lower()
        if name not in self._hosts:
            raise Problem(403, "host", "is neither the loopback's nor in TOLLGATE_SERVE_HOSTS", kind="host")
        if len(self._right) < _REMEMBERED:
            self._right.add(value)


def is_loopback(host: str) -> bool:
    """Whether who listens on `host` is reached from this machine alone."""
    return host in _ADDRESSES or host == "localhost"


def listed(names: str) -> list[str]:
    """The names of a comma-separated setting."""
    return names.split(",") if names else []


def _not_local(kind: str) -> Problem:
    return Problem(
        401, "authorization", "no tokens are configured: only loopback callers are served", kind=kind
    )
