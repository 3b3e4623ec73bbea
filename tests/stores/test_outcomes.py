"""What of a payment counts as spent: by hand, and whatever the order."""

from __future__ import annotations

import itertools

import pytest

from stores.outcomes import Effect, spent_minor


@pytest.mark.parametrize(
    ("effects", "spent"),
    [
        ([], 10_000),
        ([Effect("declined")], 0),
        ([Effect("reversed")], 0),
        ([Effect("reversed", 3_000)], 7_000),
        ([Effect("refunded", 2_500), Effect("refunded", 2_500)], 5_000),
        ([Effect("refunded")], 0),
        ([Effect("captured")], 10_000),
        ([Effect("captured", 8_000)], 8_000),
        ([Effect("captured", 4_000), Effect("captured", 3_000), Effect("refunded", 1_000)], 6_000),
        ([Effect("captured", 12_000)], 12_000),  # a tip
        ([Effect("reversed", 3_000), Effect("captured", 7_000)], 7_000),
        ([Effect("incremental", 5_000)], 15_000),
        ([Effect("incremental", 5_000), Effect("captured", 15_000), Effect("refunded", 15_000)], 0),
        ([Effect("refunded", 20_000)], 0),
        ([Effect("disputed"), Effect("dispute_won")], 10_000),
        ([Effect("captured"), Effect("declined")], 0),
    ],
)
def test_what_is_spent_of_a_hundred_euros(effects: list[Effect], spent: int) -> None:
    for order in itertools.permutations(effects):
        assert spent_minor(10_000, order) == spent
