"""What is decided once for all hosts: which models are in service, and what each scheduled job did last.

On one host they are files of the home folder (`stores.deployment`, `stores.job_states`). Where
`TOLLGATE_STATE_URL` names a PostgreSQL they are rows of its schema `tollgate`, and the files are copies that
the hosts keep for those who read often: a scoring worker never waits for the database, and goes on with the
last deployment it saw while that is away. A change is one transaction: two promotions at once cannot lose
one of them.
"""

from __future__ import annotations

import fcntl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from stores.deployment import (
    Change,
    Deployment,
    DeploymentError,
    keep_history,
    read_deployment,
    read_history,
    write_copy,
    write_deployment,
)
from stores.job_states import JobState, read_states, schedule_folder, write_states

if TYPE_CHECKING:
    import psycopg

    from stores.settings import Settings

#: Seconds that the database may take to be reached, and to answer.
_CONNECT_SECONDS: Final = 3
_STATEMENT_MS: Final = 5_000
_SCHEMA: Final = """
create schema if not exists tollgate;
create table if not exists tollgate.deployment_changes (
    number bigint generated always as identity primary key,
    at timestamptz not null default now(),
    change jsonb not null
);
create table if not exists tollgate.job_states (name text primary key, state jsonb not null);
"""
_decode_change: Final = msgspec.json.Decoder(Change).decode


class StateAway(OSError):
    """The state database does not answer, or refuses; what was asked changed nothing."""


class State(Protocol):
    """Where the deployment and the jobs' states are."""

    def deployment(self) -> Deployment:
        """The deployment in force, an empty one if nothing was ever promoted."""

    def history(self) -> list[Change]:
        """Every change of it, oldest first."""

    def deploy(
        self, before: Deployment, after: Deployment, *, step: str, version: str, gates: list[dict[str, Any]],
        by: str = "", why: str = "",
    ) -> None:  # fmt: skip
        """Replace `before`, as it was read, by `after`; `DeploymentError` if it is no longer in force."""

    def jobs(self) -> dict[str, JobState]:
        """The state of every job that ever ran."""

    def keep_job(self, name: str, state: JobState) -> None:
        """Replace one job's state."""

    def running(self, name: str) -> Any:
        """A context that holds the job's lock over all hosts; its value is False if another holds it."""


def open_state(configured: Settings) -> State:
    """The state of these settings. Raises `StateAway` if its database cannot be reached."""
    if configured.cluster.state_url is None:
        return Files(configured.home)
    return Postgres(configured.cluster.state_url, configured.home)


class Files:
    """State in the home folder of the only host."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def deployment(self) -> Deployment:
        return read_deployment(self._home)

    def history(self) -> list[Change]:
        return read_history(self._home)

    def deploy(
        self, before: Deployment, after: Deployment, *, step: str, version: str, gates: list[dict[str, Any]],
        by: str = "", why: str = "",
    ) -> None:  # fmt: skip
        write_deployment(self._home, after, step=step, version=version, gates=gates, by=by, why=why)

    def jobs(self) -> dict[str, JobState]:
        return read_states(self._home)

    def keep_job(self, name: str, state: JobState) -> None:
        with _locked(self._home, "state", wait=True):
            write_states(self._home, {**self.jobs(), name: state})

    @contextmanager
    def running(self, name: str) -> Iterator[bool]:
        with _locked(self._home, name, wait=False) as free:
            yield free


@contextmanager
def _locked(home: Path, name: str, *, wait: bool) -> Iterator[bool]:
    folder = schedule_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


class Postgres:
    """State in PostgreSQL, with copies of it in this host's home folder."""

    def __init__(self, url: str, home: Path) -> None:
        self._url = url
        self._home = home
        with self._asked() as connection:
            # Two hosts that start at once: `if not exists` alone would let one of them fail.
            connection.execute("select pg_advisory_xact_lock(%s)", (_number("schema"),))
            connection.execute(_SCHEMA)

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            import psycopg
        except ImportError:
            raise StateAway("TOLLGATE_STATE_URL: takes a driver: pip install 'tollgate[postgres]'") from None
        try:
            return psycopg.connect(
                self._url, connect_timeout=_CONNECT_SECONDS, options=f"-c statement_timeout={_STATEMENT_MS}",
                keepalives_idle=5, keepalives_interval=2, keepalives_count=3, tcp_user_timeout=10_000,
            )  # fmt: skip
        except psycopg.Error as error:
            raise _away(error) from None

    @contextmanager
    def _asked(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection with a transaction that is committed at the end; raises `StateAway`."""
        connection = self._connect()
        import psycopg

        try:
            with connection:
                yield connection
        except psycopg.Error as error:
            raise _away(error) from None

    def deployment(self) -> Deployment:
        with self._asked() as connection:
            return _newest(connection)

    def history(self) -> list[Change]:
        with self._asked() as connection:
            rows = connection.execute(
                "select change::text from tollgate.deployment_changes order by number"
            ).fetchall()
        return [_decode_change(text) for (text,) in rows]

    def deploy(
        self, before: Deployment, after: Deployment, *, step: str, version: str, gates: list[dict[str, Any]],
        by: str = "", why: str = "",
    ) -> None:  # fmt: skip
        with self._asked() as connection:
            connection.execute("lock table tollgate.deployment_changes in exclusive mode")
            if _newest(connection) != before:
                raise DeploymentError("the deployment was changed meanwhile: look at it and try again")
            forced = any(not check["passed"] for check in gates)
            at = datetime.now(UTC).isoformat(timespec="seconds")
            change = Change(at, step, version, forced, gates, before, after, by, why)
            connection.execute(
                "insert into tollgate.deployment_changes (change) values (%s::jsonb)",
                (msgspec.json.encode(change).decode(),),
            )
        self.copy()

    def jobs(self) -> dict[str, JobState]:
        with self._asked() as connection:
            rows = connection.execute("select name, state from tollgate.job_states").fetchall()
        return {name: JobState(**state) for name, state in rows}

    def keep_job(self, name: str, state: JobState) -> None:
        with self._asked() as connection:
            connection.execute(
                "insert into tollgate.job_states (name, state) values (%s, %s::jsonb) "
                "on conflict (name) do update set state = excluded.state",
                (name, msgspec.json.encode(asdict(state)).decode()),
            )
        write_states(self._home, self.jobs())

    @contextmanager
    def running(self, name: str) -> Iterator[bool]:
        # The session's lock: the database lets go of it with the connection, whoever dies. A database that
        # goes away while the job runs lets another host begin it; jobs write the same names again.
        connection = self._connect()
        try:
            connection.autocommit = True
            free = _lock(connection, name)
            yield free
        finally:
            connection.close()

    def copy(self) -> bool:
        """Bring this host's files to what the database says; whether anything changed."""
        deployment, history, jobs = self.deployment(), self.history(), self.jobs()
        changed = False
        if history and read_deployment(self._home) != deployment:
            keep_history(self._home, history)
            write_copy(self._home, deployment)
            changed = True
        if jobs and read_states(self._home) != jobs:
            write_states(self._home, jobs)
            changed = True
        return changed


def _away(error: Exception) -> StateAway:
    # The driver's text may repeat the address.
    return StateAway(f"the state database is away or refuses: {type(error).__name__}")


def _lock(connection: psycopg.Connection[Any], name: str) -> bool:
    import psycopg

    try:
        row = connection.execute("select pg_try_advisory_lock(%s)", (_number(f"job {name}"),)).fetchone()
    except psycopg.Error as error:
        raise _away(error) from None
    return bool(row and row[0])


def _newest(connection: psycopg.Connection[Any]) -> Deployment:
    row = connection.execute(
        "select change::text from tollgate.deployment_changes order by number desc limit 1"
    ).fetchone()
    return _decode_change(row[0]).after if row is not None else Deployment()


def _number(name: str) -> int:
    """The number of an advisory lock, out of reach of other programs' small ones."""
    return (0x7011 << 32) | zlib.crc32(name.encode())
