"""What a Redis URL says, and what an unusable one is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.redis_url import Login, RedisAddress, RedisUrlError, Tls, parse_redis_url
from stores.settings import REPOSITORY, SettingsError, load_settings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1:6390/0", {"nodes": (("127.0.0.1", 6390),)}),
        ("redis://cache", {"nodes": (("cache", 6379),)}),
        ("redis://[::1]:7000/2", {"nodes": (("::1", 7000),), "database": 2}),
        ("redis://[::1]", {"nodes": (("::1", 6379),)}),
        ("redis://cache?db=4", {"nodes": (("cache", 6379),), "database": 4}),
        ("rediss://user:p%40ss,w@cache:6380/3",
         {"nodes": (("cache", 6380),), "database": 3, "login": Login("user", "p@ss,w"), "tls": Tls()}),
        ("redis://:a@b:c@cache", {"nodes": (("cache", 6379),), "login": Login(None, "a@b:c")}),
        ("redis+sentinel://:s@a:1,b/main/2",
         {"kind": "sentinel", "nodes": (("a", 1), ("b", 26379)), "master": "main", "database": 2,
          "login": Login(None, "s")}),
        ("redis+sentinel://a/main?db=2",
         {"kind": "sentinel", "nodes": (("a", 26379),), "master": "main", "database": 2}),
        ("rediss+sentinel://a/main?sentinel_username=w&sentinel_password=t%2F",
         {"kind": "sentinel", "nodes": (("a", 26379),), "master": "main", "tls": Tls(),
          "sentinel": Login("w", "t/")}),
        ("redis+cluster://:secret@a:1,b:2",
         {"kind": "cluster", "nodes": (("a", 1), ("b", 2)), "login": Login(None, "secret")}),
        ("rediss+cluster://a/0?ssl_check_hostname=false",
         {"kind": "cluster", "nodes": (("a", 6379),), "tls": Tls(check_hostname=False)}),
        ("unix:///run/valkey.sock?db=3", {"nodes": (), "path": "/run/valkey.sock", "database": 3}),
        ("unix://user:w@/run/valkey.sock",
         {"nodes": (), "path": "/run/valkey.sock", "login": Login("user", "w")}),
    ],
)  # fmt: skip
def test_a_url_says_where_and_how_to_enter(url: str, expected: dict[str, Any]) -> None:
    assert parse_redis_url(url) == RedisAddress(**{"kind": "single"} | expected)


def test_files_named_by_a_url_are_read_or_kept(tmp_path: Path) -> None:
    for name in ("ca", "own", "key"):
        (tmp_path / name).write_text("")
    (tmp_path / "password").write_text("s3cret/&\n")
    address = parse_redis_url(
        f"rediss://scorer@cache?password_file={tmp_path}/password&ssl_ca_certs={tmp_path}/ca"
        f"&ssl_certfile={tmp_path}/own&ssl_keyfile={tmp_path}/key"
    )
    assert address.login == Login("scorer", "s3cret/&")
    assert address.tls == Tls(*(str(tmp_path / name) for name in ("ca", "own", "key")))


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://cache", "should begin with redis://"),
        ("redis+unix://cache", "should begin with redis://"),
        ("cache:6379", "should begin with redis://"),
        ("redis://:hunter2@/0", "should name a host"),
        ("redis://:hunter2@cache:port/0", "the port of a Redis URL"),
        ("redis://:hunter2@cache:70000", "the port of a Redis URL"),
        ("redis://:hunter2/more@cache/0", "write / as %2F"),
        ("redis://user:hunter2/more@cache/0", "write / as %2F"),
        ("redis://:hunter2?more@cache/0", "%3F"),
        ("redis://:hunter2@cache/x", "the database of a Redis URL"),
        ("redis://:hunter2@cache/1/2", "the database of a Redis URL"),
        ("redis://:hunter2@cache/1?db=2", "the database of a Redis URL"),
        ("redis://:hunter2@a,b/0", "should name one host"),
        ("redis+cluster://:hunter2@a,b/1", "database 0 only"),
        ("redis+sentinel://:hunter2@a:26379", "should name the master"),
        ("redis://cache?ssl_ca_certs=hunter2", "ssl_ca_certs in a Redis URL needs a scheme with TLS"),
        ("rediss://cache?ssl_cert_reqs=none", "may have these options"),
        ("rediss://cache?ssl_ca_certs=/nowhere.pem", "ssl_ca_certs of the Redis URL is no file: /nowhere.pem"),
        ("rediss://cache?ssl_check_hostname=maybe", "ssl_check_hostname of the Redis URL"),
        ("redis://cache?password_file=/nowhere", "password_file of the Redis URL cannot be read: /nowhere"),
        ("redis://:hunter2@cache?password_file=/nowhere", "a password or a password_file, not both"),
        ("redis://cache?sentinel_password=hunter2", "may have these options"),
        ("unix://run/valkey.sock", "should be absolute"),
        ("unix://:hunter2@", "should be absolute"),
    ],
)  # fmt: skip
def test_an_unusable_url_is_told_which_part_is_wrong_and_never_its_password(url: str, told: str) -> None:
    with pytest.raises(RedisUrlError) as refused:
        parse_redis_url(url)
    assert told in str(refused.value)
    assert SECRET not in str(refused.value)
    with pytest.raises(SettingsError, match="TOLLGATE_REDIS_URL") as stopped:
        load_settings({"TOLLGATE_REDIS_URL": url})
    assert told in str(stopped.value) and SECRET not in str(stopped.value)


@given(user=st.text(max_size=20), password=st.text(min_size=1, max_size=20))
def test_any_user_and_password_arrive_when_they_are_escaped(user: str, password: str) -> None:
    address = parse_redis_url(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@cache:1/2")
    assert address == RedisAddress("single", (("cache", 1),), 2, Login(user or None, password))
    assert address.shown == "redis://cache:1/2"


def test_what_may_be_printed_of_an_address_has_no_password() -> None:
    address = parse_redis_url(f"rediss+sentinel://u:{SECRET}@a:1,[::1]:2/main/3?sentinel_password={SECRET}")
    assert address.shown == "rediss+sentinel://a:1,[::1]:2/main/3"
    assert SECRET not in repr(address)


def test_no_other_module_opens_redis_by_itself() -> None:
    opens = re.compile(r"\bRedis\(|\bRedisCluster\(|\bSentinel\(|redis\S*\.from_url\(")
    rooms = (
        "fraud",
        "stores",
        "feature_repo",
        "streaming",
        "training",
        "bentos",
        "monitoring",
        "jobs",
        "datasets",
        "embedded",
    )
    found = {
        str(path.relative_to(REPOSITORY))
        for room in rooms for path in (REPOSITORY / room).rglob("*.py") if opens.search(path.read_text())
    }  # fmt: skip
    # The second starts a server and waits for it.
    assert found == {"stores/redis_clients.py", "embedded/redis_server.py"}
