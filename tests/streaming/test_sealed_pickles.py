"""A recovery store, or a stranger on the flow's port, brings no code into the flow."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from stores.key_file import change_ring, make_ring, new_key
from stores.keys import Keys
from stores.settings import REPOSITORY, Settings
from streaming.log.load import Load
from streaming.sealed_pickles import check_recovery, open_pickle, seal_pickle
from streaming.states.snapshots import SnapshotError, recovery_folder
from tests.streaming.conftest import FlowProcess
from tests.streaming.oracle import differences, plain_loop
from tests.streaming.test_flow import accepted, publish

H7 = pytest.mark.finding("H7", "high", "A changed row of the recovery store ran code when the flow resumed")
StartFlow = Callable[..., FlowProcess]


class Planted:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[[str, int], int], tuple[str, int]]:
        return os.open, (str(self._marker), os.O_CREAT)


def rows(folder: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    found = []
    for part in recovery_folder(folder).glob("*.sqlite3"):
        with closing(sqlite3.connect(part)) as store, store:
            found += store.execute(statement, values).fetchall()
    return found


@H7
def test_a_planted_row_runs_nothing_and_is_named_when_the_flow_resumes(
    configured: Settings, flow: StartFlow, tmp_path: Path
) -> None:
    first = publish(configured, Load(200, customers=20))
    flow("--drain").finish()
    stream, marker = configured.home / "stream", tmp_path / "code ran"
    assert recovery_folder(stream).stat().st_mode & 0o777 == 0o700
    assert rows(stream, "SELECT ser_change FROM snaps WHERE ser_change IS NOT NULL")
    kept = {part: part.read_bytes() for part in recovery_folder(stream).glob("*.sqlite3*")}
    rows(stream, "UPDATE snaps SET ser_change = ?", pickle.dumps(Planted(marker)))
    resumed = flow("--drain")
    output, _ = resumed.process.communicate(timeout=120)
    assert resumed.process.returncode != 0
    assert "no key in force signed the snapshot" in output
    assert not marker.exists()
    for part in recovery_folder(stream).glob("*.sqlite3*"):
        part.unlink()
    for part, content in kept.items():
        part.write_bytes(content)
    second = publish(configured, Load(200, seed=2, customers=20))
    flow("--drain").finish()
    assert differences(configured, plain_loop(accepted(first) + accepted(second))) == []


@H7
def test_a_row_that_is_exchanged_after_the_look_is_not_loaded_either(tmp_path: Path) -> None:
    marker = tmp_path / "code ran"
    program = textwrap.dedent(
        """
        import pathlib, pickle, sqlite3, sys
        from datetime import timedelta
        import bytewax.operators as op
        from bytewax.dataflow import Dataflow
        from bytewax.recovery import RecoveryConfig, init_db_dir
        from bytewax.testing import TestingSink, TestingSource, run_main
        from stores.keys import open_keys
        from stores.settings import settings
        from streaming.sealed_pickles import sealed_pickles

        class Logic(op.StatefulBatchLogic):
            def __init__(self, resumed):
                print("resumed", resumed)
            def on_batch(self, values):
                return [], False
            def snapshot(self):
                return ("of", "a", "tuple")

        store, planted = pathlib.Path(sys.argv[1]), bytes.fromhex(sys.argv[2])
        init_db_dir(store, 1)
        log = [("k", 1), ("k", 2), TestingSource.ABORT(), ("k", 3), TestingSource.ABORT(), ("k", 4)]
        def run():
            flow = Dataflow("f")
            stream = op.stateful_batch("s", op.input("i", flow, TestingSource(log)), Logic)
            op.output("o", stream, TestingSink([]))
            with sealed_pickles(open_keys(settings())):
                run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(store))
        run()
        run()
        if planted:
            with sqlite3.connect(store / "part-0.sqlite3") as rows:
                rows.execute("UPDATE snaps SET ser_change = ?", (planted,))
        run()
        """
    )

    def ran(planted: bytes, folder: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / folder).mkdir()
        return subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / folder), planted.hex()],
            cwd=REPOSITORY, text=True, capture_output=True, timeout=120,
        )  # fmt: skip

    assert ran(b"", "whole").stdout.splitlines()[1:] == ["resumed ('of', 'a', 'tuple')"] * 2
    attacked = ran(pickle.dumps(Planted(marker)), "planted")
    assert attacked.returncode != 0
    assert "a pickle that no key in force signed was not loaded" in attacked.stderr
    assert not marker.exists()


@H7
def test_processes_that_have_different_keys_do_not_understand_each_other(
    configured: Settings, tmp_path: Path
) -> None:
    #  one process  ──── items, pickled and signed ────►  the other, whose keys are a stranger's
    publish(configured, Load(300, customers=30))
    make_ring(tmp_path / "stranger" / "keys.json")
    prepare(configured)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "streaming.flow", "--drain", "--processes", "2", "--process-id", str(number)],
            cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | ({"TOLLGATE_KEYS_FILE": str(tmp_path / "stranger" / "keys.json")} if number else {}),
        )
        for number in range(2)
    ]  # fmt: skip
    outputs = []
    try:
        for process in processes:
            try:
                outputs.append(process.communicate(timeout=60)[0])
            except subprocess.TimeoutExpired:
                process.kill()
                outputs.append(process.communicate()[0])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert "a pickle that no key in force signed was not loaded" in "".join(outputs)


def prepare(configured: Settings) -> None:
    """An empty recovery store for two processes that are started by hand."""
    from streaming.runner import prepare_recovery

    prepare_recovery(configured.home / "stream", 2)


def test_rows_of_a_key_before_are_signed_anew_so_that_it_can_be_retired(tmp_path: Path) -> None:
    make_ring(tmp_path / "keys" / "keys.json")
    keys = Keys(tmp_path / "keys" / "keys.json")
    seal, old = keys.seal("recovery"), keys.signing
    (tmp_path / "recovery").mkdir()
    with closing(sqlite3.connect(tmp_path / "recovery" / "part-0.sqlite3")) as store, store:
        store.execute("CREATE TABLE snaps (step_id TEXT, state_key TEXT, ser_change BLOB)")
        store.execute(
            "INSERT INTO snaps VALUES ('s', 'k', ?), ('s', 'gone', NULL)", (seal_pickle(seal, b"x"),)
        )
    key = new_key(datetime.now(UTC))
    change_ring(keys.path, lambda ring: msgspec.structs.replace(ring, keys=(*ring.keys, key)))
    keys.refresh()
    check_recovery(tmp_path / "recovery", seal)
    ((sealed,), _) = rows(tmp_path, "SELECT ser_change FROM snaps")
    assert isinstance(sealed, bytes)
    assert sealed[:4].hex() == key.id != old
    assert open_pickle(seal, sealed) == b"x"


def test_a_file_that_is_no_store_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "part-0.sqlite3").write_bytes(b"no database" * 100)
    make_ring(tmp_path / "keys" / "keys.json")
    with pytest.raises(SnapshotError, match=r"part-0\.sqlite3 is not a recovery store"):
        check_recovery(tmp_path, Keys(tmp_path / "keys" / "keys.json").seal("recovery"))
