"""The keyed step: coalescing, snapshots, idle entities and catching up after a crash."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fraud.features.entities import ENTITIES, VELOCITY_TTL
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from streaming.log.load import Load, events
from streaming.states.shard_batch import SHARDS, ShardBatch
from streaming.states.shards import ShardLogic
from streaming.states.snapshots import SnapshotError
from tests.streaming.one_shard import (
    CUSTOMER,
    Start,
    history,
    states,
    take_base,
    updates,
    updates_held,
    written,
)


def test_many_updates_of_a_key_in_one_batch_are_written_once(start: Start) -> None:
    transactions = history(60)
    writes, _ = start().on_batch([updates(transactions[:30]), updates(transactions[30:])])
    assert len(writes) == 1
    assert len(writes[0].values) == len(set(writes[0].values))
    assert written(writes) == states(transactions)


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
    shard.on_batch([updates(history(2_000, customers=500), replayed=True)])
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
    monkeypatch.setattr("streaming.states.redo_files._EVERY_S", 0.0)
    transactions = history(1_000, customers=300)
    shard = start()
    shard.on_batch([updates(transactions[:600], replayed=True)])
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
    assert lately <= written(restored.on_batch([updates([], replayed=True)])[0]).keys()
    # A run that resumed hands on the places that it was given.
    restored.on_batch([updates(transactions[640:700])])
    again = start(restored.snapshot())
    assert again._packed.keys() == states(transactions[:700]).keys()
    refused_without(tmp_path / "redo", lambda: start(snapshot))


def test_files_of_updates_go_with_the_bases_that_follow_them(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.states.redo_files._EVERY_S", 0.0)
    monkeypatch.setattr("streaming.states.shards.REWRITE_S", 0.01)
    shard = start()
    deadline = time.monotonic() + 60
    seed = 0
    while shard._base < 12:
        assert time.monotonic() < deadline
        seed += 1
        shard.on_batch([updates(history(20, customers=20, seed=seed), replayed=True)])
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
    shard.on_batch([updates(transactions[200:220], replayed=True)])
    shard.on_batch([updates(transactions[220:])])
    assert start(shard.snapshot())._packed == shard._packed


@pytest.mark.parametrize("place", range(len(ENTITIES)))
def test_a_batch_is_sent_with_all_that_its_states_look_at(place: int) -> None:
    seen = [observe(transaction) for transaction in history(40)]
    values = [one.ids[place] or "" for one in seen]
    sent = ShardBatch(
        place * SHARDS, values, seen, [("customer-1", b"packed")], 7, 2, replayed=True, more=True
    )
    received = pickle.loads(pickle.dumps(sent))  # noqa: S301  # as Bytewax does between processes
    assert msgspec.structs.replace(received, seen=[], packed=b"") == msgspec.structs.replace(sent, seen=[])
    ours, theirs = VelocityState(ENTITIES[place]), VelocityState(ENTITIES[place])
    for one, other in zip(seen, received.seen, strict=True):
        assert ours.add(one, place) == theirs.add(other, place)
    assert ours.pack() == theirs.pack()


def test_updates_from_another_process_are_done_again_in_their_place(start: Start) -> None:
    transactions = history(300, customers=10)
    shard = start()
    #  few, which are gathered | many from elsewhere, kept as they came | few
    for low, high in ((0, 5), (5, 205), (205, 300)):
        sent = updates(transactions[low:high])
        shard.on_batch([ShardBatch.unpack(sent.pack()) if high - low > 100 else sent])
    assert shard._packed == states(transactions)
    assert start(shard.snapshot())._packed == shard._packed


def test_after_the_replay_states_are_lifted_above_what_the_crashed_run_stored(start: Start) -> None:
    #   crashed run stored version V of these events; the replay counts to less than V
    #   replayed: our states are rewritten at V, and the next update, even a late one, is V + 1
    transactions = history(9, customers=1)
    stored = transactions[-1].event_ms * 1000 + 500
    shard = start(stored=stored)
    first, _ = shard.on_batch([updates(transactions[:-1])])
    assert all(version < stored for version in first[0].versions)
    lifted, _ = shard.on_batch([updates([], replayed=True)])
    assert lifted[0].versions == [stored]
    late, _ = shard.on_batch([updates(history(1, customers=1, seed=9))])
    assert late[0].versions == [stored + 1]


def test_what_changes_while_a_base_is_written_is_in_the_snapshot_after_it(start: Start) -> None:
    transactions = history(800, customers=100)
    shard = start()
    for at in range(0, 800, 10):  # bases begin and end at any of these
        shard.on_batch([updates(transactions[at : at + 10], replayed=True)])
        snapshot = shard.snapshot()
    assert take_base(shard)[4]
    for held in (snapshot, shard.snapshot()):
        assert start(held)._packed == states(transactions)


def test_the_last_states_of_a_crashed_run_are_written_if_the_store_lacks_them(start: Start) -> None:
    #  interval   1        2        3 | crash: what was sent in 2 and 3 may not have arrived
    shard = start()
    shard.on_batch([updates(history(5, customers=1), replayed=True)])
    shard.snapshot()
    last = history(30, customers=20, seed=2)
    for at in (0, 15):
        shard.on_batch([updates(last[at : at + 15])])
        snapshot = shard.snapshot()
    missing = written(start(snapshot, stored=0).on_batch([updates([], replayed=True)])[0])
    assert missing.keys() == states(last).keys()
    assert missing.items() <= shard._packed.items()


def test_an_idle_entity_is_forgotten_but_not_for_one_event_of_another_year(start: Start) -> None:
    old = history(10, customers=5)
    shard = start()
    shard.on_batch([updates(old)])
    touched: set[str] = set()
    for days in (7 * 365, *range(1, VELOCITY_TTL.days + 3)):
        begin = old[0].event_time + timedelta(days=days)
        later = [each.transaction for each in events(Load(1, seed=days, start=begin), 1) if each.transaction]
        touched |= {each.customer_id for each in later}
        shard.on_batch([updates(later)])
        if days > VELOCITY_TTL.days + 3:
            assert set(states(old)) <= set(shard._packed)
    idle = set(states(old)) - touched
    assert idle and not idle & set(shard._packed)
    assert set(start(shard.snapshot())._packed) <= touched | set(states(old))
