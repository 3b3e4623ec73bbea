"""A real PostgreSQL on loopback, for the tests that ask for it; where there is none they say so and are skipped."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.redis_server import free_port

_PASSWORD = "only for tests"


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, newest version first."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: path.parts[4])
    return Path(found).resolve().parent if found else folders[-1].parent if folders else None


class PostgresServer:
    """A running server. `url` names a new database; `freeze` and `thaw` keep it from answering."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        bins = programs()
        assert bins is not None
        self.host, self.port = host, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="tollgate-postgres-"))
        self._databases = 0
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:  # it refuses to run as root
            user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if _is_user(name))
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        password = self.folder / "password"
        password.write_text(_PASSWORD)
        password.chmod(0o644)  # in a folder that is for one user alone
        data = self.folder / "data"
        subprocess.run(
            [bins / "initdb", "-D", data, "-U", "tollgate", "-A", "scram-sha-256", "--pwfile", password, "--no-sync", "-E", "UTF8"],
            check=True, capture_output=True, cwd=self.folder, **self._as,
        )  # fmt: skip
        self.passfile = self.folder / "passfile"
        self.passfile.write_text(f"*:*:*:tollgate:{_PASSWORD}\n")
        self.passfile.chmod(0o600)
        self._log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            [bins / "postgres", "-D", data, "-p", str(self.port), "-k", self.folder, "-c", f"listen_addresses={host}", "-F"],
            stdout=self._log, stderr=subprocess.STDOUT, cwd=self.folder, **self._as,
        )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _address(self, database: str) -> str:
        return f"postgresql://tollgate@{self.host}:{self.port}/{database}?passfile={self.passfile}"

    def _wait(self) -> None:
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self._address("postgres")).close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def url(self) -> str:
        """The address of a new, empty database."""
        import psycopg

        self._databases += 1
        name = f"tollgate_{self._databases}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return self._address(name)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # fast shutdown
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server, for the session."""
    if programs() is None:
        pytest.skip("PostgreSQL's programs are not on this machine (Debian: apt-get install postgresql)")
    server = PostgresServer()
    yield server
    server.stop()
