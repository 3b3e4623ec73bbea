"""One shard of customers: what it is given, and what it should hold then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fraud.contract.transaction import Transaction
from fraud.features.entities import ENTITIES
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from streaming.log.load import Load, events
from streaming.states.shard_batch import ShardBatch, Writes
from streaming.states.shards import ShardLogic

CUSTOMER = ENTITIES[0]
Start = Callable[..., ShardLogic]


def history(count: int, customers: int = 3, seed: int = 1) -> list[Transaction]:
    found = [event.transaction for event in events(Load(count, seed=seed, customers=customers), 1)]
    return [transaction for transaction in found if transaction]


def updates(
    transactions: list[Transaction],
    *,
    source: int = 0,
    replayed: bool = False,
    more: bool = False,
    appended_ms: int = 0,
) -> ShardBatch:
    seen = [observe(transaction) for transaction in transactions]
    values = [transaction.customer_id for transaction in transactions]
    return ShardBatch(0, values, seen, [], appended_ms, source, replayed, more)


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
