"""Snapshots, bases and seeds of older versions are read or refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fraud.features.entities import ENTITIES
from fraud.state.layout import STATE_VERSION
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from streaming.states.disk import Disk
from streaming.states.shard_batch import SHARD_KEYS, SHARDS, ShardBatch
from streaming.states.snapshots import SnapshotError
from streaming.states.state_bases import StateBases
from tests.fraud import version_2
from tests.streaming.one_shard import (
    CUSTOMER,
    Start,
    history,
    states,
    take_base,
    updates,
    written,
)


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
    assert set(written(restored.on_batch([updates([], replayed=True)])[0])) == set(lately)


def packed_before_5(batch: ShardBatch) -> bytes:
    place, seen = batch.shard // SHARDS, batch.seen
    columns = (
        batch.shard, batch.values,
        b"".join([one.event_ms.to_bytes(8, "little") for one in seen]),
        b"".join([one.word.to_bytes(8, "little", signed=True) for one in seen]),
        [one.keys[place] for one in seen],
        [one.location for one in seen] if ENTITIES[place].located else None,
        batch.seeds, batch.appended_ms, batch.source if batch.replayed else -1,
    )  # fmt: skip
    return msgspec.msgpack.encode(columns)


@pytest.mark.parametrize("place", range(len(ENTITIES)))
def test_a_piece_of_a_snapshot_before_version_5_is_read(place: int) -> None:
    seen = [observe(transaction) for transaction in history(40)]
    values = [one.ids[place] or "" for one in seen]
    batch = ShardBatch(place * SHARDS, values, seen, [("customer-1", b"packed")], 7, 1, replayed=True)
    old = ShardBatch.unpack(packed_before_5(batch))
    now = ShardBatch.unpack(batch.pack())
    names = ("values", "seeds", "appended_ms", "replayed")
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
    shard.on_batch([updates(transactions[:200], replayed=True)])
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


def test_a_seed_of_version_2_is_merged(start: Start) -> None:
    transactions = history(40, customers=4)
    found = states(transactions)
    shard = start()
    seeds = ShardBatch(0, [], [], list(of_version_2(found).items()), 0)
    assert written(shard.on_batch([seeds])[0]) == written(
        start().on_batch([ShardBatch(0, [], [], list(found.items()), 0)])[0]
    )
