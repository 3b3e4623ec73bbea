"""No record stops those behind it: what the flow reads, and what lies beside its recovery store."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import redis

from fraud.contract.event import EventTimes, encode_event, parse_event
from fraud.contract.transaction import ContractError, encode_transaction
from fraud.state.velocity import VelocityState
from stores.aside import asides
from stores.redis_layout import encode_timestamp, entity_key, ts_field
from stores.settings import Settings
from streaming.ingest.arrival_log import ArrivalLog
from streaming.ingest.dead_letters import (
    LONGEST,
    LetterBox,
    dead_letter,
    letters_folder,
    mask_card_numbers,
    read_letters,
    replay,
)
from streaming.ingest.ingest import Ingest
from streaming.ingest.recent_ids import IdSegments, RecentIds
from streaming.log.batch import Batch
from streaming.log.source import reader_opener
from streaming.online.online_writer import OnlineWriter
from streaming.states.disk import Disk
from streaming.states.guard import Guard
from streaming.states.redo_files import RedoFiles
from streaming.states.shard_batch import Writes
from streaming.states.shards import ShardLogic
from streaming.states.snapshots import SnapshotError
from streaming.states.state_bases import StateBases
from streaming.states.tracks import STANDARD, Track
from tests.bentos.running import transaction
from tests.streaming.one_shard import CUSTOMER, history, states, take_base, updates, written

S1 = pytest.mark.finding(
    "S1", "medium", "one key's failure in the keyed step ended the flow, again at every start"
)
S2 = pytest.mark.finding(
    "S2", "medium", "who writes stream/ changed states: files beside the store had checksums only"
)
S3 = pytest.mark.finding(
    "S3", "high", "times that producers write themselves overflowed the lake's row: the flow ended"
)
S4 = pytest.mark.finding(
    "S4", "medium", "a dead letter of any length, or one damaged line, stopped their replay"
)
S5 = pytest.mark.finding(
    "S5", "high", "a string planted under an entity's key in Redis ended the flow at its next write"
)
NOW_MS = time.time_ns() // 1_000_000


def picky(state: VelocityState, seen: Any, place: int) -> bool:
    """Takes no event of an odd amount."""
    if seen.amount % 2:
        raise OverflowError("not this one")
    return state.add(seen, place)


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.close()


def shard(folder: Path, disk: Disk, tracks: tuple[Track, ...], snapshot: Any = None) -> ShardLogic:
    return ShardLogic(
        1, lambda _place, values: [0] * len(values), StateBases(folder / "states", disk),
        RedoFiles(folder / "redo", disk), lambda: None, snapshot, tracks, Guard(folder / "aside"),
    )  # fmt: skip


@S1
def test_an_event_that_a_state_cannot_take_goes_aside_and_the_others_count(
    tmp_path: Path, disk: Disk
) -> None:
    transactions = [
        msgspec.structs.replace(one, amount=f"{10 + place}.0{place % 2}")  # every other amount is odd
        for place, one in enumerate(history(40, customers=4))
    ]
    transactions = [transaction(**_fields(one)) for one in transactions]
    good = [one for one in transactions if one.amount_reference % 2 == 0]
    assert 0 < len(good) < len(transactions)
    tracks = (dataclasses.replace(STANDARD[0], add=picky), *STANDARD[1:])
    logic = shard(tmp_path, disk, tracks)
    writes, _ = logic.on_batch([updates(transactions, replayed=True)])
    assert written(writes) == states(good)
    aside = asides(tmp_path / "aside")
    assert len(aside) == len(transactions) - len(good)
    assert aside[0]["reason"] == "an event could not be added: OverflowError"
    # A run that resumes repeats the updates, and what failed fails again, alone.
    resumed = shard(tmp_path, disk, tracks, logic.snapshot())
    later = transaction(**_fields(good[-1]) | {"transaction_id": "later", "amount": "4.00"})
    writes, _ = resumed.on_batch([updates([later], replayed=True)])
    after = written(writes)
    assert after[later.customer_id] == states([*good, later])[later.customer_id]


def _fields(one: Any) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(encode_transaction(one))
    return fields


@S1
def test_a_seed_and_a_state_that_fail_leave_the_key_as_it_was(tmp_path: Path, disk: Disk) -> None:
    transactions = history(20, customers=1)
    logic = shard(tmp_path, disk, STANDARD)
    writes, _ = logic.on_batch([updates(transactions, replayed=True)])
    (name,) = written(writes)
    batch = updates([])
    batch.seeds.append((name, b"no state at all"))
    assert logic.on_batch([batch])[0] == []
    later = transaction(**_fields(transactions[-1]) | {"transaction_id": "later"})
    writes, _ = logic.on_batch([updates([later])])
    assert written(writes) == states([*transactions, later])
    assert [one["key"] for one in asides(tmp_path / "aside")] == [name]


@S2
@pytest.mark.parametrize("which", ["states", "redo"])
def test_a_file_beside_the_recovery_store_that_somebody_changed_is_not_loaded(
    tmp_path: Path, disk: Disk, which: str
) -> None:
    logic = shard(tmp_path, disk, STANDARD)
    logic.on_batch([updates(history(2_000, customers=50), replayed=True)])
    snapshot = take_base(logic)
    if which == "redo":
        deadline = time.monotonic() + 20
        while not any(isinstance(entry, tuple) and isinstance(entry[0], str) for entry in snapshot[5]):
            assert time.monotonic() < deadline
            logic.on_batch([updates(history(64, customers=50, seed=time.time_ns() % 10_000))])
            time.sleep(0.05)
            snapshot = logic.snapshot()
    shard(tmp_path, disk, STANDARD, snapshot)  # as it was written it is taken
    for path in (tmp_path / which).rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.unlink()  # other names of the file stay what they were
            path.write_bytes(bytes(data))
    with pytest.raises(SnapshotError, match="changed by somebody else"):
        shard(tmp_path, disk, STANDARD, snapshot)


@S2
def test_the_base_of_another_moment_is_not_loaded_in_place_of_the_one_that_the_snapshot_names(
    tmp_path: Path, disk: Disk
) -> None:
    bases = StateBases(tmp_path, disk)
    first = bases.write("customer:0", 1, {"a": b"old"}).result()
    second = bases.write("customer:0", 2, {"a": b"new"}).result()
    (tmp_path / "customer-0.00000002").write_bytes((tmp_path / "customer-0.00000001").read_bytes())
    assert bases.read("customer:0", 1, first) == {"a": b"old"}
    with pytest.raises(SnapshotError):
        bases.read("customer:0", 2, second)


@S2
def test_ids_that_somebody_put_among_the_recent_ones_are_not_loaded(tmp_path: Path) -> None:
    disk = Disk()
    recent = RecentIds(40_000, 10**12, (), IdSegments(tmp_path, disk))
    for key in range(8_192):
        recent.add(key, key)
    disk.close()
    snapshot = recent.snapshot()
    RecentIds(40_000, 10**12, snapshot, IdSegments(tmp_path, Disk()))
    (path,) = tmp_path.glob("*.ids")
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(SnapshotError):
        RecentIds(40_000, 10**12, snapshot, IdSegments(tmp_path, Disk()))


@S3
@pytest.mark.parametrize(
    "times",
    [EventTimes((NOW_MS + 3_600_000) * 1000), EventTimes((1 << 62) - 1), EventTimes(1, 0, (1 << 48) - 1)],
)
def test_times_out_of_bounds_that_a_producer_states_are_refused(times: EventTimes) -> None:
    one = transaction()
    with pytest.raises(ContractError):
        parse_event(encode_event(one, encode_transaction(one), times), now_ms=NOW_MS)


@S3
def test_a_log_time_from_far_ahead_neither_ends_the_flow_nor_moves_its_sequence(
    tmp_path: Path, disk: Disk
) -> None:
    """Kafka's timestamps and a Redis stream's ids are the producer's to write."""
    payloads = [encode_transaction(transaction(transaction_id=f"t{place}")) for place in range(3)]
    ingest = Ingest(0, 1_000, 10**12)
    batch = Batch(payloads, ["1", "2", "3"], [NOW_MS, 2**64 - 1, NOW_MS])
    ingested = ingest.take(batch)
    assert not ingested.letters
    assert max(ingested.arrivals.sequences) < (NOW_MS + 60_000) << 21
    log = ArrivalLog(tmp_path, 0, disk)
    log.add(ingested.arrivals)
    log.flush()
    assert sum(pq.read_metadata(path).num_rows for path in tmp_path.rglob("*.parquet")) == 3


@S3
def test_a_row_that_no_lake_holds_goes_aside_and_the_others_are_written(tmp_path: Path, disk: Disk) -> None:
    payloads = [encode_transaction(transaction(transaction_id=f"t{place}")) for place in range(3)]
    arrivals = Ingest(0, 1_000, 10**12).take(Batch(payloads, ["1", "2", "3"], [NOW_MS] * 3)).arrivals
    arrivals.known_us[1] = 1 << 70
    log = ArrivalLog(tmp_path, 0, disk)
    log.add(arrivals)
    log.flush()
    (path,) = tmp_path.rglob("*.parquet")
    assert pq.read_table(path, partitioning=None)["transaction_id"].to_pylist() == ["t0", "t2"]
    (aside,) = asides(tmp_path / "_aside")
    assert base64.b64decode(aside["data"]) == payloads[1]


@S4
def test_a_letter_is_bounded_and_no_half_number_stands_at_its_cut(configured: Settings) -> None:
    test_number = b"4111111111111111"
    payload = b"x" * (LONGEST - 9) + test_number + b"y" * LONGEST
    letter = dead_letter(0, "1-0", ContractError("(body)", "is none"), payload)
    kept = base64.b64decode(letter.original)
    assert (letter.cut, letter.size, len(kept)) == (True, len(payload), LONGEST - 9)
    assert mask_card_numbers(kept) == kept
    box = LetterBox(letters_folder(configured) / "000")
    box.add([letter])
    box.flush()
    assert replay(configured, configured.event_log.topic) == (0, 1, 0)


@S4
def test_a_damaged_line_and_a_partition_that_is_gone_hold_up_no_other_letter(log: Settings) -> None:
    folder = letters_folder(log)
    refused = [
        dead_letter(0, f"{place}-0", ContractError("(body)", "is none"), b"{%d" % place) for place in (1, 2)
    ]
    refused.insert(1, dead_letter(99, "9-0", ContractError("(body)", "is none"), b"{9"))
    box = LetterBox(folder / "000")
    box.add(refused)
    box.flush()
    (path,) = folder.glob("*/*.jsonl")
    first, second, third = path.read_bytes().splitlines()
    not_base64 = first.replace(base64.b64encode(b"{1"), b"%%%")
    path.write_bytes(b"\n".join([b"\xff{", first, b"[" * 100_000, second, not_base64, third]) + b"\n")
    assert replay(log, log.event_log.topic) == (2, 1, 3)
    reader = reader_opener(log)(0, None)
    end, found = reader.end(), []
    while not reader.reached(end):
        found += reader.read().payloads
    reader.close()
    assert found == [b"{1", b"{2"]
    assert len(asides(folder)) == 3
    assert list(read_letters(folder)) == []


@S5
def test_what_somebody_planted_under_an_entitys_key_ends_no_write_and_no_resume(configured: Settings) -> None:
    url, project = configured.redis.url, configured.feast.project
    writer = OnlineWriter(url, project)
    track = STANDARD[0]
    packed = states(history(30, customers=3))
    names = sorted(packed)
    with redis.Redis.from_url(url) as client:
        keys = [entity_key(project, track.key, name) for name in names]
        client.set(keys[0], b"no hash")
        client.hset(keys[1], ts_field(track.view), b"\x08\xff")
        client.hset(keys[2], ts_field(track.view), encode_timestamp(_far_ahead_us()))
        assert writer.versions(0, names) == [0, 0, 0]
        versions = [VelocityState.unpack(CUSTOMER, packed[name]).version for name in names]
        writer.write([Writes(0, names, versions, [packed[name] for name in names], 0)])
        assert writer.versions(0, names)[0] == versions[0]
    writer.close()


def _far_ahead_us() -> int:
    return int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
