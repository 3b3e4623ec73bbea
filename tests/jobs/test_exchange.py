"""Hosts that share an object store and a database and no folder: what one makes, another has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentos.log.decision_files import convert_all
from bentos.log.decision_log import DecisionLog
from bentos.log.labels import KeptLabel, LabelStore
from bentos.tools.audit import audit
from jobs.exchange.host import Host, MissingModel, Role
from jobs.exchange.mirror import Mirror
from jobs.exchange.tails import Abandoned, frames
from stores.commits import Collection
from stores.decisions import decisions_folder, journal_folder
from stores.deployment import Deployment, read_deployment
from stores.lake import read_labels
from stores.models import model_folder
from stores.places import PlaceAway, open_place
from stores.settings import Settings, load_settings
from stores.state import Postgres
from tests.bentos.log.test_decision_log import SEAL, row
from tests.object_store import ObjectStore
from tests.postgres import PostgresServer


@dataclass
class Hosts:
    """Makes hosts: each a folder of its own, all of one store."""

    root: Path
    store: str
    state: str

    def settings(self, name: str) -> Settings:
        at = self.root / name
        return load_settings(
            {
                "TOLLGATE_HOME": str(at / "home"), "TOLLGATE_RESULTS": str(at / "results"),
                "TOLLGATE_RUN": str(at / "run"), "TOLLGATE_STORE_URL": self.store,
                "TOLLGATE_STATE_URL": self.state,
            }
        )  # fmt: skip

    def __call__(self, name: str, role: Role) -> Host:
        return Host(self.settings(name), role)


@pytest.fixture
def hosts(tmp_path: Path, object_store: ObjectStore, postgres_server: PostgresServer) -> Hosts:
    return Hosts(tmp_path, object_store.url(tmp_path.name), postgres_server.url())


def ids(home: Path) -> list[str]:
    """The decisions that a home's files hold, each as often as it stands there."""
    files = sorted(decisions_folder(home).rglob("*.parquet"))
    return sorted(
        name
        for path in files
        for name in pq.read_table(path, partitioning=None, columns=["transaction_id"])[0].to_pylist()
    )


def test_decisions_of_every_host_reach_the_jobs_host_once_and_pass_the_audit_there(hosts: Hosts) -> None:
    one, two, jobs = hosts("one", "serve"), hosts("two", "serve"), hosts("jobs", "jobs")
    for host, names in ((one, ["a", "b"]), (two, ["c"])):
        log = DecisionLog(host.home, SEAL)
        log.append([row(name) for name in names])
        host.look()
        log.close()
        convert_all(host.home)
        host.look()
        host.look()
    jobs.look()
    assert ids(jobs.home) == ["a", "b", "c"]
    findings = audit(jobs.home, SEAL)
    assert (findings.entries, findings.series, findings.problems) == (3, 2, [])
    assert not frames(jobs.decisions.collection.files())  # parquet stands for them


def test_a_host_that_is_lost_while_it_writes_loses_nothing_that_it_shipped(hosts: Hosts) -> None:
    """
    lost host   a b | look | c        | gone with its disk
    jobs host                  adopts: a b
    """
    lost, jobs = hosts("lost", "serve"), hosts("jobs", "jobs")
    log = DecisionLog(lost.home, SEAL)
    log.append([row("a")])
    lost.look()
    log.append([row("b")])
    lost.look()
    log.append([row("c")])
    copy = hosts.root / "copy"
    shutil.copytree(journal_folder(lost.home), copy)
    shutil.rmtree(hosts.root / "lost")
    jobs.look()
    assert ids(jobs.home) == []  # it may come back
    jobs._abandoned = Abandoned(0)
    jobs.look()
    jobs.look()
    assert ids(jobs.home) == ["a", "b"]
    assert audit(jobs.home, SEAL).problems == []
    # It comes back after all, with its disk: the same names, more complete, and nothing twice.
    back = hosts("back", "serve")
    shutil.copytree(copy, journal_folder(back.home))
    convert_all(back.home)
    back.look()
    jobs.look()
    assert ids(jobs.home) == ["a", "b", "c"]
    assert audit(jobs.home, SEAL).problems == []


def test_a_host_that_starts_again_ships_what_it_had_not(hosts: Hosts) -> None:
    first = hosts("one", "serve")
    log = DecisionLog(first.home, SEAL)
    log.append([row("a")])
    first.look()
    log.append([row("b")])
    again = hosts("one", "serve")
    again.look()
    shipped = frames(again.decisions.collection.files())
    assert [len(files) for files in shipped.values()] == [2]
    log.close()
    convert_all(first.home)
    again.look()
    jobs = hosts("jobs", "jobs")
    jobs.look()
    assert ids(jobs.home) == ["a", "b"]


def test_labels_meet_the_decisions_of_other_hosts(hosts: Hosts) -> None:
    one, two, jobs = hosts("one", "serve"), hosts("two", "serve"), hosts("jobs", "jobs")
    log = DecisionLog(one.home, SEAL)
    log.append([row("a", event_time="2026-03-01T12:30:00Z")])
    log.close()
    convert_all(one.home)
    one.look()
    store, known = LabelStore(two.home), datetime(2026, 3, 4, tzinfo=UTC)
    event = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    store.append([KeptLabel("a", event, True, "issuer", known, "bank")])
    two.look()
    store.close()
    two.look()
    assert not list((two.home / "labels").glob("*.ready"))  # it is the jobs host's now
    (file,) = decisions_folder(one.home).rglob("*.parquet")
    # The hour of this decision is in 2027, after the event: it is brought to where a label looks.
    there = decisions_folder(jobs.home) / "date=2026-03-01" / "hour=12"
    there.mkdir(parents=True)
    shutil.copy(file, there / "seen.parquet")
    jobs.look()
    jobs.look()
    labels = read_labels(jobs.home / "lake")
    assert labels.column("transaction_id").to_pylist() == ["a"]
    jobs.look()
    assert read_labels(jobs.home / "lake").num_rows == 1


def arrivals(host: Host, name: str, *rows: str) -> None:
    folder = host.arrivals.folder / "date=2026-03-01"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"transaction_id": list(rows)}), folder / f"{name}.parquet")


def test_a_compaction_here_is_one_there_and_a_new_disk_is_filled_again(hosts: Hosts) -> None:
    stream, jobs = hosts("stream", "stream"), hosts("jobs", "jobs")
    arrivals(stream, "one", "a")
    arrivals(stream, "two", "b")
    stream.look()
    jobs.look()
    arrivals(jobs, "merged", "a", "b")
    for name in ("one", "two"):
        (jobs.arrivals.folder / "date=2026-03-01" / f"{name}.parquet").unlink()
    # It ends before it could say so, and starts again.
    jobs = hosts("jobs", "jobs")
    jobs.look()
    assert sorted(jobs.arrivals.collection.files()) == ["date=2026-03-01/merged.parquet"]
    arrivals(stream, "three", "c")
    stream.look()
    shutil.rmtree(jobs.arrivals.folder)
    hosts("jobs", "jobs").look()
    hosts("new", "jobs").look()
    for name in ("jobs", "new"):
        folder = hosts.root / name / "home" / "lake" / "transactions" / "date=2026-03-01"
        assert sorted(path.name for path in folder.iterdir()) == ["merged.parquet", "three.parquet"]


def save(home: Path, version: str) -> None:
    folder = model_folder(home, version)
    folder.mkdir(parents=True)
    for name in ("model.txt", "manifest.json", "signature"):
        (folder / name).write_text(f"{name} of {version}")


def promote(hosts: Hosts, host: str, version: str) -> None:
    state = Postgres(hosts.state, hosts.root / host / "home")
    state.deploy(state.deployment(), Deployment(version), step="champion", version=version, gates=[])


def test_a_promotion_reaches_scoring_hosts_after_the_model_it_names(hosts: Hosts) -> None:
    jobs, serve = hosts("jobs", "jobs"), hosts("serve", "serve")
    save(jobs.home, "v1")
    save(jobs.home, "v2")
    jobs.look()
    serve.look()
    assert read_deployment(serve.home) == Deployment()
    promote(hosts, "jobs", "v1")
    serve.look()
    assert read_deployment(serve.home) == Deployment("v1")
    assert (model_folder(serve.home, "v1") / "model.txt").read_text() == "model.txt of v1"
    assert not model_folder(serve.home, "v2").exists()  # nobody serves it
    promote(hosts, "jobs", "v3")
    with pytest.raises(MissingModel, match="v3 is in service and not in the shared store"):
        serve.look()
    assert read_deployment(serve.home) == Deployment("v1")


def test_a_store_that_is_away_costs_nothing_and_gets_everything_afterwards(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = hosts("serve", "serve")
    log = DecisionLog(serve.home, SEAL)
    log.append([row("a")])
    real = serve._place.shown
    with monkeypatch.context() as away:
        gone = open_place("s3://tollgate/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")
        for collection in (serve.decisions.collection, serve._labels.collection, serve.declared.collection):
            away.setattr(collection, "place", gone)
        with pytest.raises(PlaceAway):
            serve.look()
        assert log.append([row("b")])  # the worker does not notice
    assert serve.decisions.collection.place.shown.startswith(real)
    serve.look()
    log.close()
    convert_all(serve.home)
    serve.look()
    jobs = hosts("jobs", "jobs")
    jobs.look()
    assert ids(jobs.home) == ["a", "b"]


@pytest.fixture
def mirrors(tmp_path: Path) -> Callable[[str], Mirror]:
    place = open_place(f"file://{tmp_path / 'place'}")
    return lambda name: Mirror(
        Collection(place, name), tmp_path / name / "files", tmp_path / name / "held.json"
    )


def test_what_is_deleted_here_is_deleted_there_but_a_lost_folder_is_not(
    mirrors: Callable[[str], Mirror],
) -> None:
    here, there = mirrors("here"), mirrors("there")
    here.folder.mkdir(parents=True)
    for name in ("a", "b", "c"):
        (here.folder / name).write_text(name)
    assert here.ship() == 3
    assert there.pull() == 3
    (here.folder / "a").unlink()
    (here.folder / "b").write_text("changed")
    here.ship()
    there.pull()
    assert {path.name: path.read_text() for path in there.folder.iterdir()} == {"b": "changed", "c": "c"}
    shutil.rmtree(here.folder)
    here.folder.mkdir()
    here.ship()
    here.pull()
    assert {path.name: path.read_text() for path in here.folder.iterdir()} == {"b": "changed", "c": "c"}


def test_old_files_that_were_shipped_go_here_and_stay_there(mirrors: Callable[[str], Mirror]) -> None:
    here, there = mirrors("here"), mirrors("there")
    here.folder.mkdir(parents=True)
    (here.folder / "shipped").write_text("1")
    here.ship()
    (here.folder / "not-yet").write_text("2")
    assert here.forget_old(60, now=4e9) == 1
    assert [path.name for path in here.folder.iterdir()] == ["not-yet"]
    here.ship()
    there.pull()
    assert sorted(path.name for path in there.folder.iterdir()) == ["not-yet", "shipped"]


def test_a_decision_file_that_is_deleted_on_a_host_stays_in_the_store(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path / 'place'}")
    here, there = (
        Mirror(Collection(place, name), tmp_path / name, tmp_path / f"{name}.json", deletes=False)
        for name in ("here", "there")
    )
    here.folder.mkdir()
    for name in ("a", "b"):
        (here.folder / name).write_text(name)
    here.ship()
    (here.folder / "a").unlink()
    here.ship()
    there.pull()
    assert sorted(path.name for path in there.folder.iterdir()) == ["a", "b"]
