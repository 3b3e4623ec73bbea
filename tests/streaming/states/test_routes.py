"""The dataflow's keys: equal shares for every number of processes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import bytewax.operators as op
import pytest
from bytewax._bytewax import cluster_main
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import TestingSource

from fraud.features.entities import ENTITIES
from streaming.states.routes import ROUTES
from streaming.states.shard_batch import SHARD_KEYS, SHARDS

_MOST_APPENDED = 70


class _Noop(StatefulBatchLogic[int, int, int]):
    def on_batch(self, values: list[int]) -> tuple[list[int], bool]:
        return values, StatefulBatchLogic.DISCARD

    def snapshot(self) -> int:
        return 0


class _Where(DynamicSink[tuple[str, int]]):
    """Notes which worker each key came to."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Any:
        found = self.found

        class Note(StatelessSinkPartition[tuple[str, int]]):
            def write_batch(self, items: list[tuple[str, int]]) -> None:
                found.update({key: worker_index for key, _ in items})

        return Note()


def workers(keys: list[str], count: int) -> dict[str, int]:
    """The worker, of so many, that Bytewax gives each of `keys` to."""
    sink = _Where()
    flow = Dataflow("where")
    items = op.input("keys", flow, TestingSource([(key, 0) for key in keys]))
    op.output("where", op.stateful_batch("state", items, lambda _: _Noop()), sink)
    cluster_main(flow, [], 0, worker_count_per_proc=count)  # type: ignore[no-untyped-call]
    return sink.found


def test_what_is_appended_to_a_shards_key_is_the_least_that_gives_the_wanted_worker() -> None:
    choices = [f"{name}.{number}" for name in SHARD_KEYS for number in range(_MOST_APPENDED)]
    found = workers(choices, 24)

    def fits(place: int, shard: int, key: str) -> bool:
        return found[key] % 8 == shard and found[key] % 3 == (shard + place) % 3

    wanted = [
        next(
            key
            for number in range(_MOST_APPENDED)
            if fits(place, shard, key := f"{entity.name}:{shard}.{number}")
        )
        for place, entity in enumerate(ENTITIES)
        for shard in range(SHARDS)
    ]
    assert list(ROUTES) == wanted


@pytest.mark.parametrize("count", [2, 3, 4, 6, 8])
def test_processes_have_equally_many_shards(count: int) -> None:
    where = workers(list(ROUTES), count)
    assert set(Counter(where.values()).values()) == {len(ROUTES) // count}
    for place in range(len(ENTITIES)):
        shares = Counter(where[route] for route in ROUTES[place * SHARDS : (place + 1) * SHARDS])
        assert max(shares.values()) - min(shares[worker] for worker in range(count)) <= 1


def test_the_names_of_shards_alone_would_fall_unevenly() -> None:
    assert sorted(Counter(workers(list(SHARD_KEYS), 2).values()).values()) == [20, 28]
