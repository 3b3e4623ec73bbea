"""The dataflow's keys: equal shares for every number of processes, and no snapshot orphaned."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import bytewax.operators as op
import pytest
from bytewax._bytewax import cluster_main
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig
from bytewax.testing import TestingSource

from fraud.features.entities import ENTITIES
from stores.settings import Settings
from streaming import flow as velocity_flow
from streaming.log.load import Load, events
from streaming.log.publish import open_writer
from streaming.runner import prepare_recovery
from streaming.states.routes import shard_routes
from streaming.states.shard_batch import SHARD_KEYS, SHARDS
from tests.streaming.conftest import FlowProcess
from tests.streaming.oracle import differences, plain_loop

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


def test_what_is_appended_to_a_shards_key_is_the_least_that_gives_the_wanted_worker(
    configured: Settings,
) -> None:
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
    assert list(shard_routes(configured.home / "none")) == wanted


@pytest.mark.parametrize("count", [2, 3, 4, 6, 8])
def test_processes_have_equally_many_shards(configured: Settings, count: int) -> None:
    routes = shard_routes(configured.home / "none")
    where = workers(list(routes), count)
    assert set(Counter(where.values()).values()) == {len(routes) // count}
    for place in range(len(ENTITIES)):
        shares = Counter(where[route] for route in routes[place * SHARDS : (place + 1) * SHARDS])
        assert max(shares.values()) - min(shares[worker] for worker in range(count)) <= 1


def test_the_names_that_keys_once_had_fall_unevenly() -> None:
    assert sorted(Counter(workers(list(SHARD_KEYS), 2).values()).values()) == [20, 28]


def test_a_store_with_snapshots_under_the_names_that_keys_once_had_goes_on_with_them(
    configured: Settings, flow: Callable[..., FlowProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    published = list(events(Load(2_000, customers=100, merchants=40), configured.event_log.partitions))

    def publish(some: slice) -> None:
        with open_writer(configured) as writer:
            for event in published[some]:
                writer.publish_raw(event.partition, event.payload)

    publish(slice(1_000))
    with monkeypatch.context() as before:
        before.setattr(velocity_flow, "shard_routes", lambda _: SHARD_KEYS)
        recovery = prepare_recovery(configured.home / "stream", 1)
        cluster_main(
            velocity_flow.build_flow(configured, threading.Event(), drain=True), [], 0,
            recovery_config=RecoveryConfig(recovery),  # type: ignore[no-untyped-call]
        )  # type: ignore[no-untyped-call]  # fmt: skip
    assert shard_routes(recovery) == SHARD_KEYS
    publish(slice(1_000, None))
    flow("--drain").finish()
    assert shard_routes(recovery) == SHARD_KEYS
    transactions = [event.transaction for event in published if event.transaction]
    assert differences(configured, plain_loop(transactions)) == []
