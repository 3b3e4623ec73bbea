"""What real parts leave on the disk belongs to their user alone, whatever mask they were started with."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from bentos.api.edge import SCORE_PATH
from embedded.redis_server import RedisServer, password_file, start_redis
from stores.redis_clients import connect
from stores.settings import REPOSITORY, load_settings, settings
from tests.bentos.running import start_service, transaction_json, wait_for


@pytest.fixture
def open_mask() -> Iterator[None]:
    """The mask that most shells have."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(home: Path) -> list[str]:
    """What somebody else could read, write or enter: nothing is entered from a closed folder."""
    found = []
    for path in (home, *home.rglob("*")):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & 0o077:
            found.append(f"{path.relative_to(home)} {stat.filemode(mode)}")
    return found


@pytest.mark.finding(
    "M6", "medium", "parquet, states, registry and recovery were readable for every local user"
)
def test_service_stream_registry_and_lake_write_for_their_user_alone(
    tmp_path: Path, redis_server: RedisServer, open_mask: None
) -> None:
    home, url = tmp_path / "private", f"redis://127.0.0.1:{redis_server.port}/9"
    redis.Redis.from_url(url).flushdb()
    home.mkdir()  # with 0755: it was there before
    environment = os.environ | {
        "TOLLGATE_HOME": str(home), "TOLLGATE_RUN": str(home / "run"), "TOLLGATE_REDIS_URL": url, "TZ": "UTC",
        "TOLLGATE_TOPIC": "private", "TOLLGATE_PARTITIONS": "1",
    }  # fmt: skip

    def run(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=REPOSITORY, check=True, capture_output=True
        )

    run("-c", "from feature_repo.store import apply_definitions; apply_definitions()")
    service = start_service(home, url, TOLLGATE_TOPIC="private", TOLLGATE_PARTITIONS="1")
    (home / "service.log").chmod(0o600)  # the test's own, made by it
    try:
        for number in range(3):
            answer = httpx.post(service.url + SCORE_PATH, json=transaction_json(transaction_id=f"p{number}"))
            assert answer.status_code == 200
        label = {
            "transaction_id": "p0", "event_time": "2026-03-01T12:00:00Z", "is_fraud": True, "source": "analyst"
        }  # fmt: skip
        assert httpx.post(service.url + "/v1/labels", json=label).status_code == 202
        assert wait_for(lambda: any((home / "lake" / "labels").rglob("*.parquet")))
    finally:
        service.stop()
    _flow_for_a_while(environment, home)
    # `bentoml serve` makes the empty folders of its store before it reads the service, inside a closed home.
    assert [name for name in open_to_others(home) if not name.startswith("bentoml")] == []
    assert [
        path for path in (home / "bentoml").rglob("*") if path.is_file() and path.stat().st_mode & 0o077
    ] == []
    kinds = {path.relative_to(home).parts[0] for path in home.rglob("*") if path.is_file()}
    assert {"registry.db", "decisions", "lake", "stream"} <= kinds


def _flow_for_a_while(environment: dict[str, str], home: Path) -> None:
    flow = subprocess.Popen(
        [sys.executable, "-m", "streaming.flow"], env=environment, cwd=REPOSITORY,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert wait_for(lambda: any((home / "lake" / "transactions").rglob("*")), 120)
    finally:
        flow.terminate()
        flow.wait(60)


@pytest.mark.finding("M6", "medium", "the home was open: every local user could walk in")
def test_a_home_that_was_open_is_closed_when_the_settings_are_read(
    home: Path, open_mask: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(mode=0o755)
    settings()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    (home / "file").touch()
    assert stat.S_IMODE((home / "file").stat().st_mode) == 0o600
    # Parts that run as several users share a group.
    monkeypatch.setenv("TOLLGATE_UMASK", "027")
    settings.cache_clear()
    settings()
    (home / "shared").mkdir()
    assert stat.S_IMODE((home / "shared").stat().st_mode) == 0o750


@pytest.mark.finding("M7", "medium", "every local user read states and planted answers in the embedded store")
def test_the_embedded_server_answers_nobody_without_its_password(home: Path, open_mask: None) -> None:
    home.mkdir()
    secret = password_file(home / "redis")
    password = secret.read_text().strip()
    assert len(password) > 40
    assert password_file(home / "redis").read_text().strip() == password
    server = start_redis(home / "redis", durable=True, password=password)
    try:
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=server.port).get("a")
        client = connect(f"redis://127.0.0.1:{server.port}/0?password_file={secret}")
        assert client.set("a", "b") is True
        process = Path(f"/proc/{server.pid}")
        assert (
            password.encode() not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        )
        assert password not in "".join(path.read_text() for path in (home / "redis").glob("*.log"))
        assert open_to_others(home / "redis") == []
        for refused in ("CONFIG SET dir /tmp", "DEBUG SLEEP 0", "MODULE LOAD /tmp/x.so"):
            with pytest.raises(redis.RedisError):
                client.execute_command(*refused.split())
    finally:
        server.stop()


@pytest.mark.finding("M7", "medium", "the default address had no password to bring")
def test_the_default_address_names_the_password_once_there_is_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOLLGATE_REDIS_URL", raising=False)
    assert load_settings().redis.address.login.password is None
    secret = password_file(home / "redis")
    found = load_settings().redis
    assert found.address.login.password == secret.read_text().strip()
    assert secret.read_text().strip() not in found.url + found.address.shown + repr(found)
    # An address of one's own is left alone.
    monkeypatch.setenv("TOLLGATE_REDIS_URL", "redis://127.0.0.1:6390/0")
    assert load_settings().redis.address.login.password is None
