"""The keyed step: coalescing, snapshots, idle entities and catching up after a crash."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fraud.contract import Transaction
from fraud.entities import ENTITIES
from fraud.observation import observe
from fraud.state_layout import STATE_VERSION
from fraud.velocity import VelocityState
from streaming.disk import Disk
from streaming.held_states import MOST_HELD
from streaming.load import Load, events
from streaming.redo_files import RedoFiles
from streaming.shard_batch import SHARD_KEYS, SHARDS, ShardBatch, Writes
from streaming.shards import ShardLogic
from streaming.snapshots import SnapshotError
from streaming.state_bases import StateBases
from tests.fraud import version_2

CUSTOMER = ENTITIES[0]
Start = Callable[..., ShardLogic]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A shard over one partition, whose online store holds `stored` versions."""

    disk = Disk()

    def build(snapshot: tuple[object, ...] | None = None, stored: int = 0) -> ShardLogic:
        bases, files = StateBases(tmp_path / "states", disk), RedoFiles(tmp_path / "redo", disk)
        return ShardLogic(
            1, lambda _place, values: [stored] * len(values), bases, files, lambda: None, snapshot
        )

    yield build
    disk.close()


def history(count: int, customers: int = 3, seed: int = 1) -> list[Transaction]:
    found = [event.transaction for event in events(Load(count, seed=seed, customers=customers), 1)]
    return [transaction for transaction in found if transaction]


def updates(
    transactions: list[Transaction], reached: int = -1, *, more: bool = False, appended_ms: int = 0
) -> ShardBatch:
    seen = [observe(transaction) for transaction in transactions]
    values = [transaction.customer_id for transaction in transactions]
    return ShardBatch(0, values, seen, [], appended_ms, reached, more)


def states(transactions: list[Transaction]) -> dict[str, bytes]:
    found: dict[str, VelocityState] = {}
    for transaction in transactions:
        found.setdefault(transaction.customer_id, VelocityState(CUSTOMER)).add(observe(transaction), 0)
    return {value: state.pack() for value, state in found.items()}


def written(writes: list[Writes]) -> dict[str, bytes]:
    return {value: state for batch in writes for value, state in zip(batch.values, batch.states, strict=True)}


def take_base(shard: ShardLogic) -> tuple[Any, ...]:
    """Snapshots until one names a base."""
    deadline = time.monotonic() + 20
    while not (snapshot := shard.snapshot())[4]:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return snapshot


def updates_held(snapshot: tuple[Any, ...]) -> int:
    return sum(len(ShardBatch.unpack(entry).values) for entry in snapshot[5])


def test_many_updates_of_a_key_in_one_batch_are_written_once(start: Start) -> None:
    transactions = history(60)
    writes, _ = start().on_batch([updates(transactions[:30]), updates(transactions[30:])])
    assert len(writes) == 1
    assert len(writes[0].values) == len(set(writes[0].values))
    assert written(writes) == states(transactions)


def test_the_states_of_a_backlog_are_written_once_when_it_ends(start: Start) -> None:
    transactions = history(90)
    shard = start()
    assert shard.on_batch([updates(transactions[:30], more=True)]) == ([], False)
    assert shard.on_batch([updates(transactions[30:60], more=True)]) == ([], False)
    writes, _ = shard.on_batch([updates(transactions[60:])])
    assert written(writes) == states(transactions)
    assert len(writes[0].values) == len(set(writes[0].values))
    assert shard.notify_at() is None
    assert shard.on_eof() == ([], False)


def test_events_of_a_partition_that_has_caught_up_do_not_wait_for_anothers_backlog(start: Start) -> None:
    transactions = history(40)
    writes, _ = start().on_batch([updates(transactions[:20]), updates(transactions[20:], more=True)])
    assert written(writes) == states(transactions)


@pytest.mark.parametrize("end", [ShardLogic.on_notify, ShardLogic.on_eof])
def test_held_states_go_when_no_more_events_come(
    start: Start, end: Callable[[ShardLogic], tuple[list[Writes], bool]]
) -> None:
    transactions = history(30)
    shard = start()
    shard.on_batch([updates(transactions, more=True)])
    due = shard.notify_at()
    assert due is not None
    assert timedelta(0) < due - datetime.now(UTC) <= MOST_HELD
    assert written(end(shard)[0]) == states(transactions)


def test_states_are_held_for_a_part_of_what_their_events_have_waited(start: Start) -> None:
    def held(waited_ms: int) -> bool:
        oldest = time.time_ns() // 1_000_000 - waited_ms
        return not start().on_batch([updates(history(30), more=True, appended_ms=oldest)])[0]

    assert held(waited_ms=60_000)
    assert not held(waited_ms=-1_000)  # the log's clock is ahead of ours


def test_a_snapshot_has_what_is_held_and_the_run_that_resumes_writes_it(start: Start) -> None:
    #  written at once | held | snapshots, the last with a base | a crash before what is held is written
    before, held = history(20, customers=4), history(40, customers=9, seed=2)
    shard = start()
    shard.on_batch([updates(before, reached=0)])
    shard.snapshot()
    shard.on_batch([updates(held, more=True)])
    snapshots = [shard.snapshot(), shard.snapshot(), shard.snapshot(), take_base(shard)]
    for snapshot in snapshots:
        resumed = start(snapshot, stored=0)
        missing = written(resumed.on_batch([updates([], reached=0)])[0])
        assert states(held).keys() <= missing.keys()
        assert missing.items() <= states(before + held).items()
        assert resumed._packed == states(before + held)
    assert written(shard.on_notify()[0]) == missing


def test_a_transaction_seen_twice_is_not_written_twice(start: Start) -> None:
    transactions = history(5)
    shard = start()
    shard.on_batch([updates(transactions)])
    assert shard.on_batch([updates(transactions)]) == ([], False)


def test_a_restored_shard_continues_as_if_it_had_never_ended(start: Start) -> None:
    transactions = history(400, customers=20)
    shard = start()
    for at in range(0, 300, 10):
        shard.on_batch([updates(transactions[at : at + 10])])
        snapshot = shard.snapshot()
    restored = start(snapshot)
    writes, _ = restored.on_batch([updates(transactions[300:])])
    expected = states(transactions)
    assert written(writes) == {value: expected[value] for value in written(writes)}
    assert written(writes)


def test_a_snapshot_does_not_change_when_the_shard_goes_on(start: Start) -> None:
    shard = start()
    shard.on_batch([updates(history(20))])
    snapshot = shard.snapshot()
    copy = repr(snapshot)
    shard.on_batch([updates(history(20, seed=2))])
    assert repr(snapshot) == copy


def test_snapshots_hold_only_what_changed_since_the_base(start: Start) -> None:
    shard = start()
    shard.on_batch([updates(history(2_000, customers=500), reached=0)])
    take_base(shard)
    shard.on_batch([updates(history(3, customers=500, seed=2))])
    assert updates_held(shard.snapshot()) == 3


def test_a_lost_base_is_named_with_what_to_do(start: Start, tmp_path: Path) -> None:
    shard = start()
    shard.on_batch([updates(history(20))])
    snapshot = take_base(shard)
    refused_without(tmp_path / "states", lambda: start(snapshot))


def refused_without(folder: Path, resume: Callable[[], object]) -> None:
    """Damage the files in `folder`, then remove them: each time `resume` says so."""
    paths = [path for path in folder.glob("**/*") if path.is_file()]
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(SnapshotError, match="damaged"):
        resume()
    for path in paths:
        path.unlink()
    with pytest.raises(SnapshotError, match="every process"):
        resume()


def pieces_on_disk(shard: ShardLogic) -> tuple[Any, ...]:
    """A snapshot that names every piece but the last, which nothing has followed."""
    deadline = time.monotonic() + 20
    while True:
        snapshot = shard.snapshot()
        if not any(isinstance(entry, bytes) for entry in snapshot[5][:-1]):
            return snapshot
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_snapshot_names_the_updates_that_are_on_disk(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.redo_files._EVERY_S", 0.0)
    transactions = history(1_000, customers=300)
    shard = start()
    shard.on_batch([updates(transactions[:600], reached=0)])
    base = take_base(shard)[4]
    for at in range(600, 640, 10):  # too few for another base
        shard.on_batch([updates(transactions[at : at + 10])])
        shard.snapshot()
    snapshot = pieces_on_disk(shard)
    assert snapshot[4] == base and len(snapshot[5]) == 4
    assert len(pickle.dumps(snapshot[5][:-1])) < 400
    restored = start(snapshot)
    assert restored._packed == states(transactions[:640])
    # What was written lately is known by its place, too, and looked up when the replay is over.
    lately = {one.customer_id for one in transactions[600:640]}
    assert lately <= written(restored.on_batch([updates([], reached=0)])[0]).keys()
    # A run that resumed hands on the places that it was given.
    restored.on_batch([updates(transactions[640:700])])
    again = start(restored.snapshot())
    assert again._packed.keys() == states(transactions[:700]).keys()
    refused_without(tmp_path / "redo", lambda: start(snapshot))


def test_files_of_updates_go_with_the_bases_that_follow_them(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.redo_files._EVERY_S", 0.0)
    monkeypatch.setattr("streaming.shards.REWRITE_S", 0.01)
    shard = start()
    deadline = time.monotonic() + 60
    seed = 0
    while shard._base < 12:
        assert time.monotonic() < deadline
        seed += 1
        shard.on_batch([updates(history(20, customers=20, seed=seed), reached=0)])
        assert start(shard.snapshot())._packed == shard._packed
    names = [path.name for path in (tmp_path / "redo" / "customer-0").iterdir()]
    assert names and min(int(name.partition("-")[0]) for name in names) > shard._base - 10


def test_a_snapshot_restores_what_seeds_and_catching_up_did_in_their_place(start: Start) -> None:
    #  updates | a seed and updates | updates | lifted above the store | updates
    transactions = history(300, customers=10)
    seed = VelocityState(CUSTOMER)
    for transaction in history(5, customers=1, seed=7):
        seed.add(observe(transaction), 0)
    seeded = updates(transactions[100:150])
    seeded.seeds.append(("customer-3", seed.pack()))
    shard = start(stored=transactions[-1].event_ms * 1000 + 500_000)
    shard.on_batch([updates(transactions[:100])])
    shard.on_batch([seeded])
    shard.on_batch([updates(transactions[150:200])])
    shard.on_batch([updates(transactions[200:220], reached=0)])
    shard.on_batch([updates(transactions[220:])])
    assert start(shard.snapshot())._packed == shard._packed


def test_a_snapshot_of_version_2_is_read(start: Start) -> None:
    # It held the states that had changed since the base, not their updates.
    transactions = history(50, customers=5)
    shard = start()
    shard.on_batch([updates(transactions[:30])])
    lately = tuple({one.customer_id for one in transactions[:30]})
    snapshot = (2, *shard.snapshot()[1:5], tuple(shard._packed.items()), (), lately)
    restored = start(snapshot)
    assert restored._packed == shard._packed
    restored.on_batch([updates(transactions[30:])])
    assert start(restored.snapshot())._packed == states(transactions)
    assert start((*snapshot[:5], (), (), ()))._packed == {}


def test_a_snapshot_of_version_3_is_read(start: Start) -> None:
    # It held all updates since the base, and the values written lately.
    transactions = history(50, customers=5)
    shard = start()
    shard.on_batch([updates(transactions[:30])])
    lately = tuple({one.customer_id for one in transactions[:30]})
    restored = start((3, *shard.snapshot()[1:7], lately))
    assert restored._packed == shard._packed
    assert set(written(restored.on_batch([updates([], reached=0)])[0])) == set(lately)


def packed_before_5(batch: ShardBatch) -> bytes:
    place, seen = batch.shard // SHARDS, batch.seen
    columns = (
        batch.shard, batch.values,
        b"".join([one.event_ms.to_bytes(8, "little") for one in seen]),
        b"".join([one.word.to_bytes(8, "little", signed=True) for one in seen]),
        [one.keys[place] for one in seen],
        [one.location for one in seen] if ENTITIES[place].located else None,
        batch.seeds, batch.appended_ms, batch.reached,
    )  # fmt: skip
    return msgspec.msgpack.encode(columns)


@pytest.mark.parametrize("place", range(len(ENTITIES)))
def test_a_piece_of_a_snapshot_before_version_5_is_read(place: int) -> None:
    seen = [observe(transaction) for transaction in history(40)]
    values = [one.ids[place] or "" for one in seen]
    batch = ShardBatch(place * SHARDS, values, seen, [("customer-1", b"packed")], 7, 1)
    old = ShardBatch.unpack(packed_before_5(batch))
    now = ShardBatch.unpack(batch.pack())
    names = ("values", "seeds", "appended_ms", "reached")
    assert [getattr(old, name) for name in names] == [getattr(now, name) for name in names]
    ours, theirs = VelocityState(ENTITIES[place]), VelocityState(ENTITIES[place])
    for one, other in zip(now.seen, old.seen, strict=True):
        assert ours.add(one, place) == theirs.add(other, place)
    assert ours.pack() == theirs.pack()


def test_a_snapshot_of_version_4_is_read(start: Start) -> None:
    transactions = history(50, customers=5)
    shard = start()
    shard.on_batch([updates(transactions[:30])])
    piece = packed_before_5(updates(transactions[:30]))
    restored = start((4, *shard.snapshot()[1:5], (piece,), (), (piece,)))
    assert restored._packed == shard._packed
    restored.on_batch([updates(transactions[30:])])
    assert start(restored.snapshot())._packed == states(transactions)


@pytest.mark.parametrize("place", range(len(ENTITIES)))
def test_a_batch_is_sent_with_all_that_its_states_look_at(place: int) -> None:
    seen = [observe(transaction) for transaction in history(40)]
    values = [one.ids[place] or "" for one in seen]
    sent = ShardBatch(place * SHARDS, values, seen, [("customer-1", b"packed")], 7, 1, more=True)
    received = pickle.loads(pickle.dumps(sent))  # noqa: S301  # as Bytewax does between processes
    assert msgspec.structs.replace(received, seen=[], packed=b"") == msgspec.structs.replace(sent, seen=[])
    ours, theirs = VelocityState(ENTITIES[place]), VelocityState(ENTITIES[place])
    for one, other in zip(seen, received.seen, strict=True):
        assert ours.add(one, place) == theirs.add(other, place)
    assert ours.pack() == theirs.pack()


@pytest.mark.parametrize("place", [0, 1])
def test_a_snapshot_of_another_version_is_refused_with_a_clear_sentence(start: Start, place: int) -> None:
    shard = start()
    shard.on_batch([updates(history(5))])
    snapshot = list(shard.snapshot())
    snapshot[place] = 99
    with pytest.raises(SnapshotError, match=r"version 99, this program reads\s+version"):
        start(tuple(snapshot))


def of_version_2(found: dict[str, bytes]) -> dict[str, bytes]:
    return {
        value: version_2.packed(VelocityState.unpack(CUSTOMER, packed)) for value, packed in found.items()
    }


def test_a_snapshot_and_a_base_with_states_of_version_2_are_continued(start: Start, tmp_path: Path) -> None:
    transactions = history(400, customers=20)
    shard = start()
    shard.on_batch([updates(transactions[:200], reached=0)])
    base = take_base(shard)[4]
    shard.on_batch([updates(transactions[200:210])])
    snapshot = list(shard.snapshot())
    assert snapshot[4] == base
    disk = Disk()
    StateBases(tmp_path / "states", disk).write(
        SHARD_KEYS[0], base, of_version_2(states(transactions[:200]))
    ).result()
    disk.close()
    snapshot[:2] = 2, 2
    snapshot[5], snapshot[7] = tuple(of_version_2(states(transactions[:210])).items()), ()
    restored = start(tuple(snapshot))
    writes, _ = restored.on_batch([updates(transactions[210:])])
    expected = states(transactions)
    assert written(writes) == {value: expected[value] for value in written(writes)}
    assert restored.snapshot()[1] == STATE_VERSION
    assert start(restored.snapshot())._packed.keys() == expected.keys()


def test_updates_from_another_process_are_done_again_in_their_place(start: Start) -> None:
    transactions = history(300, customers=10)
    shard = start()
    #  few, which are gathered | many from elsewhere, kept as they came | few
    for low, high in ((0, 5), (5, 205), (205, 300)):
        sent = updates(transactions[low:high])
        shard.on_batch([ShardBatch.unpack(sent.pack()) if high - low > 100 else sent])
    assert shard._packed == states(transactions)
    assert start(shard.snapshot())._packed == shard._packed


def test_a_seed_of_version_2_is_merged(start: Start) -> None:
    transactions = history(40, customers=4)
    found = states(transactions)
    shard = start()
    seeds = ShardBatch(0, [], [], list(of_version_2(found).items()), 0)
    assert written(shard.on_batch([seeds])[0]) == written(
        start().on_batch([ShardBatch(0, [], [], list(found.items()), 0)])[0]
    )


def test_after_the_replay_states_are_lifted_above_what_the_crashed_run_stored(start: Start) -> None:
    #   crashed run stored version V of these events; the replay counts to less than V
    #   reached: our states are rewritten at V, and the next update, even a late one, is V + 1
    transactions = history(9, customers=1)
    stored = transactions[-1].event_ms * 1000 + 500
    shard = start(stored=stored)
    first, _ = shard.on_batch([updates(transactions[:-1])])
    assert all(version < stored for version in first[0].versions)
    lifted, _ = shard.on_batch([updates([], reached=0)])
    assert lifted[0].versions == [stored]
    late, _ = shard.on_batch([updates(history(1, customers=1, seed=9))])
    assert late[0].versions == [stored + 1]


def test_what_changes_while_a_base_is_written_is_in_the_snapshot_after_it(start: Start) -> None:
    transactions = history(800, customers=100)
    shard = start()
    for at in range(0, 800, 10):  # bases begin and end at any of these
        shard.on_batch([updates(transactions[at : at + 10], reached=0)])
        snapshot = shard.snapshot()
    assert take_base(shard)[4]
    for held in (snapshot, shard.snapshot()):
        assert start(held)._packed == states(transactions)


def test_the_last_states_of_a_crashed_run_are_written_if_the_store_lacks_them(start: Start) -> None:
    #  interval   1        2        3 | crash: what was sent in 2 and 3 may not have arrived
    shard = start()
    shard.on_batch([updates(history(5, customers=1), reached=0)])
    shard.snapshot()
    last = history(30, customers=20, seed=2)
    for at in (0, 15):
        shard.on_batch([updates(last[at : at + 15])])
        snapshot = shard.snapshot()
    missing = written(start(snapshot, stored=0).on_batch([updates([], reached=0)])[0])
    assert missing.keys() == states(last).keys()
    assert missing.items() <= shard._packed.items()


def test_an_entity_idle_for_its_ttl_is_forgotten(start: Start) -> None:
    old = history(10, customers=5)
    shard = start()
    shard.on_batch([updates(old)])
    later = [
        event.transaction
        for event in events(Load(1, seed=4, start=old[0].event_time.replace(month=5)), 1)
        if event.transaction
    ]
    shard.on_batch([updates(later)])
    assert set(start(shard.snapshot())._packed) <= {later[0].customer_id} | set(states(old))
    assert set(shard._packed) == {later[0].customer_id}
