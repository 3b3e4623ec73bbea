"""The decision log: kept before the answer, converted, audited."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from bentos.base.work import Work
from bentos.effects.outbox import remembered_answers
from bentos.log.decision_files import convert_all
from bentos.log.decision_log import GENESIS, DecisionLog, log_row
from bentos.log.head_places import FolderPlace
from bentos.log.heads import Heads, read_heads
from bentos.log.label_files import convert_labels, read_waiting
from bentos.log.labels import KeptLabel, LabelStore
from bentos.once.claims import answer_key, answer_value, claim_value
from bentos.tools.audit import audit, outcomes, rows_as_records
from embedded.redis_server import RedisServer
from fraud.contract.answer import Answer
from fraud.features.feature_list import VECTOR
from stores.decisions import journal_folder
from stores.key_file import change_ring, make_ring, new_key, read_ring
from stores.keys import Keys, open_keys
from stores.settings import load_settings
from stores.spool import SpoolFile, SpoolFull, frame, orphaned, read_frames
from tests.bentos.running import transaction

SEAL = open_keys(load_settings()).seal("log", retired=True)


def row(name: str, **changes: Any) -> tuple[object, ...]:
    """One decision's fields; the vector holds awkward numbers."""
    loop = asyncio.new_event_loop()
    work = Work(transaction(transaction_id=name, **changes), loop.create_future(), 0.0)
    loop.close()
    vector = np.arange(len(VECTOR), dtype=np.float64)
    vector[:4] = [np.nan, -0.0, 5e-324, 1e300]
    answer = Answer(
        name,
        0.1 + 0.2,
        "REVIEW",
        [],
        ["some_rule"],
        "v1",
        "champion",
        {"card_profile": "stale", "customer_profile": "fresh"},
        ["stale:card_profile"],
        1.25,
    )
    return log_row(
        work,
        vector,
        answer,
        {"customer_profile": 1_700_000_000_000_001},
        {"v2": 0.5},
        "rules-1",
        1_800_000_000_000_000,
    )


def test_decisions_become_parquet_of_the_hour_they_were_made_in_and_pass_the_audit(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, SEAL)
    log.append([row("a"), row("b", event_time="2026-03-01T13:30:00Z", ip=None)])
    log.rotate()
    log.append([row("c")])
    log.close()
    assert convert_all(tmp_path) == 3
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.parquet"))
    assert [name.split("/")[1:3] for name in files] == [
        ["date=2027-01-15", "hour=08"],
        ["date=2027-01-15", "hour=08"],
    ]
    table = pq.read_table(tmp_path / files[0], partitioning=None)
    assert table.column("feature_status")[0].as_py() == [
        ("card_profile", "stale"),
        ("customer_profile", "fresh"),
    ]
    assert table.column(VECTOR[3])[0].as_py() == 1e300
    assert np.signbit(table.column(VECTOR[1])[0].as_py())
    findings = audit(tmp_path, SEAL, ["a", "b", "c"])
    assert (findings.entries, findings.series, findings.problems) == (3, 1, [])


def test_converting_again_after_a_crash_changes_nothing(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, SEAL)
    log.append([row("a")])
    log.close()
    (segment,) = journal_folder(tmp_path).glob("*.ready")
    kept = segment.read_bytes()
    convert_all(tmp_path)
    segment.write_bytes(kept)  # as if the process had died before it deleted the segment
    convert_all(tmp_path)
    assert audit(tmp_path, SEAL).entries == 1
    assert not audit(tmp_path, SEAL).problems


@pytest.mark.parametrize("column", ["score", "decision", "amount_minor", VECTOR[7]])
def test_an_altered_value_is_found(tmp_path: Path, column: str) -> None:
    log = DecisionLog(tmp_path, SEAL)
    log.append([row(f"t{n}") for n in range(5)])
    log.close()
    convert_all(tmp_path)
    (path,) = tmp_path.rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    values = table.column(column).to_pylist()
    values[2] = "APPROVE" if column == "decision" else 77
    index = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type)),
        path,
    )
    assert audit(tmp_path, SEAL).problems == [
        f"{path.name}: entry 2 of {path.name.rsplit('-', 1)[0]} was altered or forged"
    ]


def test_a_removed_entry_and_a_missing_answer_are_found(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, SEAL)
    log.append([row(f"t{n}") for n in range(5)])
    log.close()
    convert_all(tmp_path)
    (path,) = tmp_path.rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    pq.write_table(pa.concat_tables([table.slice(0, 2), table.slice(3)]), path)
    problems = audit(tmp_path, SEAL, ["t0", "t2"]).problems
    assert any("entry 2 is missing" in problem for problem in problems)
    assert "transaction t2 was answered but is not in the log" in problems


def rehashed(table: pa.Table, code: Callable[[bytes], bytes]) -> pa.Table:
    """`table` with every hash computed again and every entry linked to the one before."""
    previous = GENESIS
    hashes, links = [], []
    column = table.schema.get_field_index("previous_hash")
    for place in range(table.num_rows):
        one = table.slice(place, 1).set_column(
            column, table.schema.field(column), pa.array([previous], pa.binary(32))
        )
        (record,) = rows_as_records(one)
        links.append(previous)
        previous = code(record)
        hashes.append(previous)
    table = table.set_column(column, table.schema.field(column), pa.array(links, pa.binary(32)))
    at = table.schema.get_field_index("hash")
    return table.set_column(at, table.schema.field(at), pa.array(hashes, pa.binary(32)))


H8 = pytest.mark.finding(
    "H8", "high", "A chain of hashes without a key was hashed anew after BLOCKs became APPROVE"
)


@H8
@pytest.mark.parametrize(
    "code",
    [
        lambda record: hashlib.sha256(record).digest(),
        lambda record: hashlib.blake2b(record, digest_size=32).digest(),
        lambda record: hashlib.blake2b(record, digest_size=32, key=b"a key of the attacker's").digest(),
    ],
    ids=["sha256", "without a key", "with another key"],
)
def test_a_series_that_was_hashed_anew_is_found(tmp_path: Path, code: Callable[[bytes], bytes]) -> None:
    log = DecisionLog(tmp_path, SEAL)
    log.append([row(f"t{n}") for n in range(5)])
    log.close()
    convert_all(tmp_path)
    (path,) = tmp_path.rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    decisions = ["APPROVE"] * table.num_rows
    table = table.set_column(table.schema.get_field_index("decision"), "decision", pa.array(decisions))
    pq.write_table(rehashed(table, code), path)
    series = path.stem.rpartition("-")[0]
    assert audit(tmp_path, SEAL).problems == [
        f"{path.name}: entry {n} of {series} was altered or forged" for n in range(5)
    ]


@H8
def test_a_journal_that_was_forged_before_it_became_parquet_is_found(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, SEAL)
    log.append([row(f"t{n}") for n in range(4)])
    log.close()
    (segment,) = journal_folder(tmp_path).glob("*.ready")
    whole = segment.read_bytes()
    entries = list(read_frames(segment))
    segment.write_bytes(b"".join([frame(entry.replace(b"REVIEW", b"APPROV")) for entry in entries]))
    forged = [f"entry {n} of {log.series} was altered or forged" for n in range(4)]
    assert [problem.partition(": ")[2] for problem in audit(tmp_path, SEAL).problems] == forged
    assert convert_all(tmp_path) == 4  # what turns it into parquet has no key, and blesses nothing
    assert [problem.partition(": ")[2] for problem in audit(tmp_path, SEAL).problems] == forged
    segment.write_bytes(whole)
    segment.rename(segment.with_name("elsewhere-00000000.ready"))
    assert len([problem for problem in audit(tmp_path, SEAL).problems if "holds an entry of" in problem]) == 4


def test_keys_change_in_the_middle_of_a_series(tmp_path: Path) -> None:
    make_ring(tmp_path / "keys.json")
    keys = Keys(tmp_path / "keys.json")
    log = DecisionLog(tmp_path / "home", keys.seal("log"))
    log.append([row("a")])
    first, key = keys.signing, new_key(datetime.now(UTC))
    change_ring(keys.path, lambda ring: msgspec.structs.replace(ring, keys=(*ring.keys, key)))
    keys.refresh()
    log.append([row("b")])
    log.close()
    convert_all(tmp_path / "home")
    table = pq.read_table(next((tmp_path / "home").rglob("*.parquet")), partitioning=None)
    assert table.column("key").to_pylist() == [first, key.id]
    ring = read_ring(keys.path)
    old = msgspec.structs.replace(ring.keys[0], retired=True)
    change_ring(keys.path, lambda ring: msgspec.structs.replace(ring, keys=(old, ring.keys[1])))
    keys.refresh()
    assert audit(tmp_path / "home", keys.seal("log", retired=True)).problems == []
    assert len(audit(tmp_path / "home", keys.seal("log")).problems) == 1


@H8
@pytest.mark.parametrize("loss", ["an end", "a series", "a series replaced"])
def test_what_was_put_out_elsewhere_shows_what_the_log_lacks(tmp_path: Path, loss: str) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    heads_seal = open_keys(load_settings()).seal("heads")
    log = DecisionLog(home, SEAL, Heads([FolderPlace(elsewhere, home)], heads_seal))
    log.append([row(f"t{n}") for n in range(5)])
    log.close()
    convert_all(home)
    (path,) = home.rglob("*.parquet")

    def problems() -> list[str]:
        found: list[str] = []
        heads = list(read_heads(elsewhere, heads_seal, found, load_settings()))
        assert len(heads) == 1
        return found + audit(home, SEAL, heads=heads).problems

    assert problems() == []
    if loss == "an end":
        pq.write_table(pq.read_table(path, partitioning=None).slice(0, 4), path)
    else:
        path.unlink()
    if loss == "a series replaced":  # by somebody who has the key
        log.sequence, log._hash = 0, GENESIS
        log._file = SpoolFile(journal_folder(home) / path.with_suffix(".open").name)
        log.append([row(f"other-{n}") for n in range(5)])
        log._file.finish(log._file.path.with_suffix(".ready"))
    assert audit(home, SEAL).problems == []  # a chain alone cannot tell
    (problem,) = problems()
    assert problem.startswith(f"{log.series}: had 5 entries at ")
    assert "cut off, replaced or lost" in problem


@H8
def test_a_head_that_somebody_else_wrote_is_named_and_proves_nothing(tmp_path: Path) -> None:
    seal = open_keys(load_settings()).seal("heads")
    heads = Heads([FolderPlace(tmp_path / "heads", tmp_path / "home")], seal)
    heads.put_out("honest", 3, b"h" * 32, last=True)
    (path,) = (tmp_path / "heads").iterdir()
    honest = path.read_bytes()
    collected = tmp_path / "service.log"
    collected.write_bytes(
        b"no json\n" + b'{"message": "head of the decision log", "head": ' + honest.strip() + b"}\n"
    )
    path.write_bytes(honest.replace(b"honest", b"forged") + b"torn {\n" + honest)
    problems: list[str] = []
    assert [head.series for head in read_heads(tmp_path / "heads", seal, problems, load_settings())] == [
        "honest"
    ]
    assert problems == [
        f"{path.name}:1: a head that no key of the keyring signed",
        f"{path.name}:2: is no head",
    ]
    assert [head.series for head in read_heads(collected, seal, problems, load_settings())] == ["honest"]
    with pytest.raises(ValueError, match="TOLLGATE_SERVE_HEADS"):
        FolderPlace(tmp_path / "home" / "heads", tmp_path / "home")


def test_heads_that_cannot_be_put_out_are_late_until_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heads").write_text("a file where the folder should be")
    heads = Heads(
        [FolderPlace(tmp_path / "heads", tmp_path / "home")], open_keys(load_settings()).seal("heads")
    )
    heads.put_out("s", 1, b"h" * 32, last=True)
    monotonic = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: monotonic + 400)
    assert heads.late > 300
    (tmp_path / "heads").unlink()
    heads.put_out("s", 1, b"h" * 32)
    assert heads.late == 0
    assert len(list((tmp_path / "heads").iterdir())) == 1


def test_an_end_that_was_cut_off_shows_against_what_redis_remembers(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/6"
    client = redis.Redis.from_url(url)
    client.flushdb()
    log = DecisionLog(tmp_path, SEAL)
    log.append([row("kept"), row("cut")])
    log.close()
    convert_all(tmp_path)
    seal = open_keys(load_settings()).seal("answers")
    for name, decision in (("kept", "REVIEW"), ("cut", "REVIEW"), ("told-otherwise", "APPROVE")):
        answer = Answer(name, 0.1 + 0.2, decision, [], [], "v1", "champion", {}, [], 1.0)  # type: ignore[arg-type]
        key = answer_key("p", name)
        client.set(key, answer_value(seal, key, b"d" * 16, msgspec.json.encode(answer)))
    key = answer_key("p", "claimed")
    client.set(key, claim_value(seal, key, b"d" * 16, b"n" * 8))
    planted: list[str] = []
    remembered = outcomes(remembered_answers(url, "p", seal), planted)
    assert planted == []
    assert set(remembered) == {"kept", "cut", "told-otherwise"}
    del remembered["told-otherwise"]
    assert audit(tmp_path, SEAL, remembered=remembered).problems == []
    (path,) = tmp_path.rglob("*.parquet")
    pq.write_table(pq.read_table(path, partitioning=None).slice(0, 1), path)
    assert audit(tmp_path, SEAL).problems == []
    assert audit(tmp_path, SEAL, remembered=remembered).problems == [
        "transaction cut was answered otherwise than the log says"
    ]
    remembered["kept"] = ("APPROVE", *remembered["kept"][1:])
    assert len(audit(tmp_path, SEAL, remembered=remembered).problems) == 2


def test_labels_sent_at_once_are_all_kept(tmp_path: Path) -> None:
    store = LabelStore(tmp_path)
    now = datetime(2026, 3, 2, tzinfo=UTC)
    labels = [KeptLabel(f"t{n}", now, True, "analyst", now, "desk") for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda label: store.append([label]), labels))
    store.close()
    assert convert_labels(tmp_path) == 0
    assert len(read_waiting(tmp_path)) == 200


def test_labels_that_the_disk_refuses_are_not_acknowledged(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a file where the folder should be")
    now = datetime(2026, 3, 2, tzinfo=UTC)
    assert not LabelStore(tmp_path).append([KeptLabel("t", now, True, "analyst", now, "desk")])


def test_decisions_of_a_version_with_other_features_pass_the_audit_and_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = DecisionLog(tmp_path, SEAL)
    log.append([row("old")])
    log.rotate()
    convert_all(tmp_path)
    log.append([row("older")])
    log.rotate()
    log.append([row("oldest")])
    log.close()
    first, _ = sorted(journal_folder(tmp_path).glob("*.ready"))
    monkeypatch.setattr("bentos.log.decision_files.served_vector", lambda: VECTOR[1:])
    aside = first.rename(tmp_path / first.name)
    assert convert_all(tmp_path) == 0
    assert "stays in the journal" in capsys.readouterr().err
    monkeypatch.undo()
    aside.rename(first)
    assert convert_all(tmp_path) == 1
    assert len(list(journal_folder(tmp_path).glob("*.foreign"))) == 1
    findings = audit(tmp_path, SEAL, ["old", "older", "oldest"])
    assert (findings.entries, findings.problems) == (3, [])


def test_a_killed_worker_leaves_whole_entries_that_are_adopted(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:  # a worker that dies without closing anything
        DecisionLog(tmp_path, SEAL).append([row("a"), row("b")])
        os._exit(9)
    os.waitpid(pid, 0)
    (segment,) = journal_folder(tmp_path).glob("*.open")
    assert orphaned(segment)
    with segment.open("ab") as torn:
        torn.write(b"\x99\x00\x00\x00half a fra")
    assert audit(tmp_path, SEAL, ["a", "b"]).problems == []
    assert convert_all(tmp_path) == 2


def test_an_open_segment_is_left_to_its_writer(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, SEAL)
    log.append([row("a")])
    assert convert_all(tmp_path) == 0
    assert audit(tmp_path, SEAL).entries == 1
    log.close()


def test_while_the_disk_refuses_records_wait_in_memory_and_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = SpoolFile(tmp_path / "spool.open", limit=3)
    assert spool.append([b"one"])
    write, room = os.pwrite, [4]

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if not room:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: room.pop()], offset)  # a torn write, then a full disk

    monkeypatch.setattr(os, "pwrite", full)
    assert not spool.append([b"two", b"three"])
    assert not spool.append([b"four"])
    with pytest.raises(SpoolFull):
        spool.append([b"five"])
    assert (spool.held, spool.full) == (3, True)
    monkeypatch.undo()
    assert spool.append([b"six"])
    assert list(read_frames(spool.path)) == [b"one", b"two", b"three", b"four", b"six"]
    spool.close()


def test_a_file_that_is_being_made_never_looks_as_if_its_writer_were_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, seen = fcntl.flock, []

    def look(descriptor: int, operation: int) -> None:
        seen.append(list(tmp_path.glob("*.open")))  # what another worker, which starts now, would take over
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", look)
    spool = SpoolFile(tmp_path / "spool.open")
    monkeypatch.undo()
    assert seen == [[]]
    assert spool.path.exists()
    assert not orphaned(spool.path)
    spool.close()
    assert orphaned(spool.path)


def test_a_converter_whose_worker_is_gone_converts_the_rest_and_ends(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, SEAL)
    log.append([row("a")])
    log.close()
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = [sys.executable, "-m", "bentos.log.decision_files", "--follow", str(gone.pid)]
    subprocess.run(command, env=os.environ | {"TOLLGATE_HOME": str(tmp_path)}, check=True, timeout=120)
    assert audit(tmp_path, SEAL, ["a"]).problems == []
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
