"""The payments that a newcomer tries first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import cos, radians

import pytest

from embedded.example import NoExampleError, example, regulars
from fraud.contract.transaction import Transaction, encode_transaction, parse_transaction

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def purchases(*rows: tuple[str, str, str, str]) -> list[Transaction]:
    """Purchases at a counter, an hour apart: id, customer, terminal, amount."""
    return [
        Transaction(
            transaction_id=name, event_time=NOON + timedelta(hours=place), customer_id=customer,
            card_id=f"card-{customer}", merchant_id="m-1", terminal_id=terminal, amount=Decimal(amount),
            currency="EUR", channel="pos", country="DE", latitude=52.5, longitude=13.4,
        )
        for place, (name, customer, terminal, amount) in enumerate(rows)
    ]  # fmt: skip


def test_the_good_example_is_the_usual_of_a_regular_whom_nobody_reported() -> None:
    table = purchases(
        ("a", "busy", "t-9", "1.00"), ("b", "busy", "t-9", "2.00"), ("c", "busy", "t-9", "3.00"), ("d", "busy", "t-9", "4.00"),
        ("e", "calm", "t-1", "10.00"), ("f", "calm", "t-1", "12.00"), ("g", "calm", "t-2", "99.00"),
    )  # fmt: skip
    known = regulars(table, {"b"})
    assert list(known) == ["calm"]
    usual = known["calm"]
    assert (usual.customer_id, usual.terminal_id, str(usual.amount)) == ("calm", "t-1", "12.00")


def test_a_lake_without_regulars_says_what_to_do() -> None:
    with pytest.raises(NoExampleError, match="make demo"):
        regulars(purchases(("a", "only", "t-1", "1.00")), {"a"})


@pytest.mark.parametrize("bad", [False, True])
def test_the_service_takes_both_as_they_are_printed(bad: bool) -> None:
    printed = encode_transaction(
        example(regulars(purchases(("a", "c", "t-1", "12.30")), ())["c"], bad=bad, now=NOON)
    )
    transaction = parse_transaction(printed, now_ms=int(NOON.timestamp() * 1000))
    assert transaction.event_time == NOON
    assert str(transaction.amount) == "12.30"


def test_the_bad_example_is_where_nobody_can_be_an_hour_later() -> None:
    usual = regulars(purchases(("a", "c", "t-1", "12.30")), ())["c"]
    far = example(usual, bad=True, now=NOON)
    assert far.longitude is not None and usual.longitude is not None
    assert (far.longitude - usual.longitude) * cos(radians(52.5)) * 111.2 > 1500
