"""An event's identity is keyed: who chooses ids cannot choose ids that are taken for one."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from fraud.features.entities import ENTITIES
from fraud.state import observation
from fraud.state.observation import observe, transaction_key, use_identity
from fraud.state.velocity import VelocityState
from tests.bentos.running import transaction

M9 = pytest.mark.finding(
    "M9",
    "medium",
    "Pairs of ids whose events a state takes for one were found in 0.4 seconds: the hash had no key",
)
#: Two ids of the same high 31 bits without a key, as the review found them.
PAIR = ("tx-29625", "tx-39501")
HIGH = ~0xFFFFFFFF


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = observation._identity
    yield
    use_identity(before)


def counted() -> int:
    """Of a pair of payments on one card in one millisecond, how many its state counts."""
    state, place = VelocityState(ENTITIES[1]), 1
    for name in PAIR:
        state.add(observe(transaction(transaction_id=name)), place)
    return len(state.events) // 2


@M9
def test_ids_that_collide_without_the_key_do_not_under_it() -> None:
    use_identity(b"")
    assert transaction_key(PAIR[0]) & HIGH == transaction_key(PAIR[1]) & HIGH
    assert counted() == 1  # what the review found
    use_identity(b"k" * 32)
    assert transaction_key(PAIR[0]) & HIGH != transaction_key(PAIR[1]) & HIGH
    assert counted() == 2


@M9
def test_one_key_gives_one_identity_and_another_key_another() -> None:
    use_identity(b"k" * 32)
    first = observe(transaction(transaction_id="t"))
    assert observe(transaction(transaction_id="t")) == first
    use_identity(b"l" * 32)
    other = observe(transaction(transaction_id="t"))
    assert other.transaction_key != first.transaction_key
    assert other.amount == first.amount
    assert msgspec.structs.asdict(other)["keys"] == msgspec.structs.asdict(first)["keys"]


def test_no_identity_is_nought() -> None:
    assert all(transaction_key(f"t{n}") != 0 for n in range(1000))
