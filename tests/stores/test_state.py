"""The deployment, its history and the jobs' states: files of one host, or rows of a real PostgreSQL."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from stores.deployment import Deployment, DeploymentError, read_deployment, read_history
from stores.job_states import JobState, read_states
from stores.settings import SettingsError, load_settings
from stores.state import Files, Postgres, State, StateAway, open_state
from tests.postgres import PostgresServer


@pytest.fixture(params=["files", "postgres"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    """An empty state of each kind."""
    if request.param == "files":
        return Files(tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return Postgres(server.url(), tmp_path)


def deploy(state: State, before: Deployment, after: Deployment, step: str) -> None:
    state.deploy(
        before, after, step=step, version=after.champion or "", gates=[{"gate": "x", "passed": True}]
    )


def test_a_deployment_is_kept_with_its_history_and_its_host_has_files_of_it(
    state: State, tmp_path: Path
) -> None:
    assert state.deployment() == Deployment()
    assert state.history() == []
    first, second = Deployment("v1"), Deployment("v2", shadow=("v1",), share=0.25)
    deploy(state, Deployment(), first, "champion")
    deploy(state, first, second, "champion")
    assert state.deployment() == second == read_deployment(tmp_path)
    assert [(change.before, change.after, change.forced) for change in state.history()] == [
        (Deployment(), first, False),
        (first, second, False),
    ]
    assert state.history() == read_history(tmp_path)


def test_jobs_states_are_kept_and_one_run_at_a_time_holds_a_jobs_lock(state: State, tmp_path: Path) -> None:
    state.keep_job("drift", JobState(1.5, 2.5, 3.5, 1, 0, ["monitoring.drift"]))
    state.keep_job("parity", JobState(4.0))
    assert state.jobs() == {
        "drift": JobState(1.5, 2.5, 3.5, 1, 0, ["monitoring.drift"]),
        "parity": JobState(4.0),
    }
    assert state.jobs() == read_states(tmp_path)
    with state.running("drift") as first, state.running("drift") as second, state.running("parity") as other:
        assert (first, second, other) == (True, False, True)
    with state.running("drift") as free:
        assert free


def test_two_hosts_see_one_state_and_neither_loses_the_others_change(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.url()
    here, there = Postgres(url, tmp_path / "here"), Postgres(url, tmp_path / "there")
    deploy(here, Deployment(), Deployment("v1"), "champion")
    assert there.copy()
    assert not there.copy()
    assert read_deployment(tmp_path / "there") == Deployment("v1") == there.deployment()
    deploy(there, Deployment("v1"), Deployment("v1", shadow=("v2",)), "shadow")
    with pytest.raises(DeploymentError, match="changed meanwhile"):
        deploy(here, Deployment("v1"), Deployment("v3"), "champion")
    assert here.deployment() == Deployment("v1", shadow=("v2",))
    with here.running("drift"), there.running("drift") as free:
        assert not free


def test_of_changes_at_once_each_is_whole_and_one_wins(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url, done = postgres_server.url(), []

    def promote(number: int) -> None:
        try:
            host = Postgres(url, tmp_path / str(number))
            deploy(host, Deployment(), Deployment(f"v{number}"), "champion")
            done.append(number)
        except DeploymentError:
            return

    threads = [threading.Thread(target=promote, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = done
    found = Postgres(url, tmp_path / "reader")
    assert [change.after.champion for change in found.history()] == [f"v{winner}"]


def test_a_database_that_is_away_is_said_to_be_and_hosts_go_on_with_what_they_saw(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    host = Postgres(postgres_server.url(), tmp_path)
    deploy(host, Deployment(), Deployment("v1"), "champion")
    away = object.__new__(Postgres)
    away.__dict__ |= host.__dict__ | {"_url": "postgresql://tollgate@127.0.0.1:9/tollgate"}
    for asked in (away.deployment, away.history, away.jobs, away.copy):
        with pytest.raises(StateAway, match="state database is away") as told:
            asked()
        assert "127.0.0.1" not in str(told.value)
    with pytest.raises(StateAway), away.running("drift"):
        pytest.fail("held a lock of a database that is away")
    assert read_deployment(tmp_path) == Deployment("v1")


def test_settings_choose_the_kind_and_refuse_what_cannot_be_used(tmp_path: Path) -> None:
    assert isinstance(open_state(load_settings({"TOLLGATE_HOME": str(tmp_path)})), Files)
    for name, value, says in (
        ("TOLLGATE_STATE_URL", "mysql://host/db", "TOLLGATE_STATE_URL"),
        ("TOLLGATE_STATE_URL", "postgresql://me:geheim@host/db", "passfile"),
        ("TOLLGATE_STATE_URL", "postgresql://me@host", "name a database"),
        ("TOLLGATE_STORE_URL", "https://host/bucket", "should start with"),
        ("TOLLGATE_SHIP_SECONDS", "0", "TOLLGATE_SHIP_SECONDS"),
    ):
        with pytest.raises(SettingsError, match=says) as refused:
            load_settings({name: value})
        assert "geheim" not in str(refused.value)


def test_feasts_registry_lives_there_too(
    postgres_server: PostgresServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by `feast apply`, read by the service's own reader of stored definitions."""
    from feature_repo.store import apply_definitions
    from feature_repo.stored_definitions import stored_definitions
    from stores.settings import settings

    monkeypatch.setenv("TOLLGATE_STATE_URL", postgres_server.url())
    settings.cache_clear()
    apply_definitions()
    found = stored_definitions("tollgate")
    assert {"customer", "card", "merchant"} <= set(found.entities)
    assert found.services
    assert not (home / "registry.db").exists()
