"""Where Redis is and how to enter it: the one parser of Redis addresses.

    redis://[user:password@]host[:port][/db]                    rediss:// with TLS
    redis+sentinel://[...@]host[:port],host[:port]/master[/db]  rediss+sentinel:// with TLS
    redis+cluster://[...@]host[:port],host[:port]               rediss+cluster:// with TLS
    unix://[...@]/path/of/socket[?db=n]

What follows a `?`: `db`, `password_file`; with TLS `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and
`ssl_check_hostname=false` (redis-py's names); for sentinels that ask for a login of their own
`sentinel_username`, `sentinel_password`, `sentinel_password_file`. An error names the part of the
URL and never repeats a password.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

Kind = Literal["single", "sentinel", "cluster"]
Place = tuple[str, int]

PORT: Final = 6379
SENTINEL_PORT: Final = 26379

_ESCAPES: Final = " (in user and password, write / as %2F and ? as %3F)"
_SCHEME: Final = re.compile(r"^(?:(redis|rediss)(?:\+(sentinel|cluster))?|(unix))$")
_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"})
_SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password", "sentinel_password_file"})


class RedisUrlError(ValueError):
    """A Redis URL that cannot be used; the text names its part, and no password."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password; the password is never shown."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server is verified, and how this client shows who it is. Paths of PEM files."""

    ca_certificates: str | None = None
    certificate: str | None = None
    key: str | None = None
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Verifies the server's certificate, always; shows a certificate of its own, if it has one."""
        context = ssl.create_default_context(cafile=self.ca_certificates)
        context.check_hostname = self.check_hostname
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What a Redis URL says.

    `nodes` holds the server itself, the sentinels, or some nodes of the cluster; it is empty for
    a Unix socket, whose `path` is set instead. `sentinel` is the login at the sentinels.
    """

    kind: Kind
    nodes: tuple[Place, ...]
    database: int = 0
    login: Login = Login()
    tls: Tls | None = None
    master: str = ""
    sentinel: Login = Login()
    path: str = ""

    def at(self, place: Place) -> RedisAddress:
        """The address of one server that sentinels or a cluster have named: same login, same TLS."""
        return replace(self, kind="single", nodes=(place,))

    @property
    def shown(self) -> str:
        """What may be printed: where, without login and options."""
        named = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes]
        where = self.path or ",".join(named)
        kind = "" if self.kind == "single" else f"+{self.kind}"
        scheme = "unix" if self.path else ("rediss" if self.tls else "redis") + kind
        behind = [self.master] if self.master else []
        behind += [str(self.database)] if self.database and not self.path else []
        return f"{scheme}://{'/'.join([where, *behind])}"


def parse_redis_url(url: str) -> RedisAddress:
    """The parts of `url`; reads the password from its file, if it names one. Raises `RedisUrlError`."""
    scheme, separator, rest = url.partition("://")
    known = _SCHEME.match(scheme)
    if not separator or known is None:
        raise RedisUrlError(
            "a Redis URL should begin with redis://, rediss://, unix://, redis+sentinel://, "
            "rediss+sentinel://, redis+cluster:// or rediss+cluster://"
        )
    tls = known[1] == "rediss"
    kind: Kind = known[2] or "single"  # type: ignore[assignment]  # what the pattern lets through
    place, _, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    options = _options(query, tls=tls, sentinel=kind == "sentinel")
    username, colon, password = credentials.partition(":")
    login = Login(
        unquote(username) or None,
        _password(unquote(password) if colon else None, options.get("password_file"), "password"),
    )
    if known[3]:
        if hosts or not path:
            raise RedisUrlError(
                "the path of a unix:// URL should be absolute: unix:///run/valkey/valkey.sock"
            )
        return RedisAddress("single", (), _database([], options, kind), login, path=slash + unquote(path))
    parts = [unquote(part) for part in path.split("/") if part]
    master = ""
    if kind == "sentinel":
        if not parts:
            raise RedisUrlError(
                "the path of a sentinel URL should name the master: redis+sentinel://host:26379/master/0"
            )
        master = parts.pop(0)
    return RedisAddress(
        kind=kind,
        nodes=_nodes(hosts, SENTINEL_PORT if kind == "sentinel" else PORT, single=kind == "single"),
        database=_database(parts, options, kind),
        login=login,
        tls=_tls(options) if tls else None,
        master=master,
        sentinel=Login(
            options.get("sentinel_username"),
            _password(
                options.get("sentinel_password"), options.get("sentinel_password_file"), "sentinel_password"
            ),
        ),
    )


def address_of(where: str | RedisAddress) -> RedisAddress:
    """The address that a URL says, or that it is already."""
    return parse_redis_url(where) if isinstance(where, str) else where


def is_cluster(where: str | RedisAddress) -> bool:
    """Whether it is a Redis Cluster, where one call may touch only one key's slot."""
    return address_of(where).kind == "cluster"


def _options(query: str, *, tls: bool, sentinel: bool) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    allowed = {"db", "password_file"}
    allowed |= _TLS_OPTIONS if tls else set()
    allowed |= _SENTINEL_OPTIONS if sentinel else set()
    for name in options:
        if name in allowed:
            continue
        if name in _TLS_OPTIONS:
            raise RedisUrlError(f"{name} in a Redis URL needs a scheme with TLS: rediss://")
        # Not the name itself: of an unescaped "?" in a password it is the password's end.
        raise RedisUrlError(
            "a Redis URL may have these options behind its ?: " + ", ".join(sorted(allowed))
            + _ESCAPES
        )  # fmt: skip
    return options


def _nodes(hosts: str, default_port: int, *, single: bool) -> tuple[Place, ...]:
    nodes = []
    for node in hosts.split(","):
        host, colon, port = node.rpartition(":") if ":" in node.rpartition("]")[2] else (node, "", "")
        if not host:
            raise RedisUrlError("a Redis URL should name a host, as in redis://127.0.0.1:6379/0" + _ESCAPES)
        number = int(port) if port.isascii() and port.isdigit() else 0
        if colon and not 1 <= number <= 65535:
            raise RedisUrlError("the port of a Redis URL should be 1 to 65535" + _ESCAPES)
        nodes.append((host.strip("[]"), number or default_port))
    if single and len(nodes) > 1:
        raise RedisUrlError(
            "a redis:// URL should name one host; several are for redis+cluster:// and redis+sentinel://"
        )
    return tuple(nodes)


def _database(path: list[str], options: Mapping[str, str], kind: Kind) -> int:
    named = [*path, *([options["db"]] if "db" in options else [])]
    if (
        any(not (text.isascii() and text.isdigit()) for text in named)
        or len({int(text) for text in named}) > 1
    ):
        raise RedisUrlError(
            "the database of a Redis URL should be one number, as in redis://127.0.0.1:6379/0"
        )
    database = int(named[0]) if named else 0
    if database and kind == "cluster":
        raise RedisUrlError("a Redis Cluster has database 0 only; take the number out of the URL")
    return database


def _password(given: str | None, file: str | None, what: str) -> str | None:
    if file is None:
        return given or None
    if given:
        raise RedisUrlError(f"a Redis URL should have a {what} or a {what}_file, not both")
    try:
        found = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise RedisUrlError(f"{what}_file of the Redis URL cannot be read: {file}") from None
    if not found:
        raise RedisUrlError(f"{what}_file of the Redis URL is empty: {file}")
    return found


def _tls(options: Mapping[str, str]) -> Tls:
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in options and not Path(options[name]).is_file():
            raise RedisUrlError(f"{name} of the Redis URL is no file: {options[name]}")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise RedisUrlError("ssl_keyfile of the Redis URL needs ssl_certfile beside it")
    check = options.get("ssl_check_hostname", "true").lower()
    if check not in ("true", "false"):
        raise RedisUrlError("ssl_check_hostname of the Redis URL should be true or false")
    return Tls(
        options.get("ssl_ca_certs"), options.get("ssl_certfile"), options.get("ssl_keyfile"), check == "true"
    )
