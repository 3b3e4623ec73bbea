"""Who decides: the share of keys that see the challenger, and that they stay the same ones."""

from __future__ import annotations

from inspect import signature

import pytest

from fraud.decision.experiment import Experiment
from training.promote import canary


def share_of(experiment: Experiment, keys: int = 20_000) -> float:
    return sum(experiment.variant(f"customer-{number}") == "challenger" for number in range(keys)) / keys


def test_a_challenger_decides_for_one_key_in_ten_unless_told_otherwise() -> None:
    # Four standard deviations of 20,000 draws are under a hundredth.
    assert share_of(Experiment()) == pytest.approx(0.1, abs=0.01)
    assert signature(canary).parameters["share"].default == 0.1


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_the_share_that_is_asked_for_is_the_share_that_is_seen(share: float) -> None:
    assert share_of(Experiment("spring", share)) == pytest.approx(share, abs=0.015)


def test_a_larger_share_keeps_those_who_saw_the_challenger() -> None:
    small, large = Experiment("spring", 0.1), Experiment("spring", 0.3)
    seen = {str(key) for key in range(2_000) if small.variant(str(key)) == "challenger"}
    assert seen and all(large.variant(key) == "challenger" for key in seen)


@pytest.mark.parametrize(
    ("share", "key"), [(-0.01, "customer_id"), (1.01, "customer_id"), (0.1, "merchant_id")]
)
def test_a_split_that_cannot_be_is_refused(share: float, key: str) -> None:
    with pytest.raises(ValueError, match=r"share should lie|key should be one of customer_id"):
        Experiment("spring", share, key)


def test_a_long_name_salts_by_what_the_hash_takes_of_it() -> None:
    # BLAKE2b takes keys of up to 64 bytes.
    long = Experiment("x" * 200, 0.5)
    assert [long.variant(str(n)) for n in range(200)] == [
        Experiment("x" * 64, 0.5).variant(str(n)) for n in range(200)
    ]
    other = Experiment("x" * 63, 0.5)
    assert any(long.variant(str(n)) != other.variant(str(n)) for n in range(200))


def test_an_unknown_key_is_named_with_those_that_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"^key should be one of customer_id, card_id, transaction_id, not 'merchant_id'$"
    ):
        Experiment("spring", 0.1, "merchant_id")
