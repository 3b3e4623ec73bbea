"""Which event time counts, and what is said about it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.contract.answer import Decision
from fraud.contract.event import EventTimes, encode_event, parse_event
from fraud.contract.times import EventTime, event_time, replayed_time
from fraud.contract.transaction import (
    LATEST_MS,
    ContractError,
    Transaction,
    encode_transaction,
    parse_transaction,
)

NOW = 1_772_366_400_000
MINUTE, HOUR = 60_000, 3_600_000
LATE = 15 * MINUTE


def transaction(**changes: object) -> Transaction:
    body = {
        "transaction_id": "t-1", "event_time": "2026-03-01T12:00:00.250Z", "customer_id": "c-1",
        "card_id": "token-1", "merchant_id": "m-1", "amount": "12.30", "currency": "EUR", "channel": "ecom",
    }  # fmt: skip
    return parse_transaction(json.dumps(body | changes).encode())


@pytest.mark.parametrize(
    ("stated", "counts"),
    [
        #  a card payment, one that a terminal kept for a while, to the edge of what is allowed
        (NOW, EventTime(NOW)), (NOW - 300, EventTime(NOW - 300)), (NOW - LATE, EventTime(NOW - LATE)),
        #  a clock that runs ahead: nothing happens after it is known
        (NOW + 1, EventTime(NOW)), (NOW + 5 * MINUTE, EventTime(NOW)),
        #  hours ahead (local time stamped Z) or behind, and 2001
        (NOW + 5 * MINUTE + 1, EventTime(NOW, "early_event")), (NOW + 2 * HOUR, EventTime(NOW, "early_event")),
        (NOW - LATE - 1, EventTime(NOW, "late_event")), (NOW - 25 * HOUR, EventTime(NOW, "late_event")),
        (991_267_200_000, EventTime(NOW, "late_event")),
    ],
)  # fmt: skip
def test_a_stated_time_counts_as_far_as_it_can_be_believed(stated: int, counts: EventTime) -> None:
    assert event_time(stated, NOW, LATE) == counts
    if counts.remark is None:
        assert event_time(stated, NOW, LATE, refuse=True) == counts
    else:
        with pytest.raises(ContractError, match="event_time: is more than"):
            event_time(stated, NOW, LATE, refuse=True)


@given(st.integers(946_684_800_000, NOW + 10 * HOUR), st.integers(1000, 2 * HOUR))
def test_what_counts_is_never_in_the_future_nor_older_than_allowed(stated: int, late_ms: int) -> None:
    assert NOW - late_ms <= event_time(stated, NOW, late_ms).event_ms <= NOW


def test_in_a_replay_every_time_of_the_past_counts() -> None:
    for stated in (991_267_200_000, NOW - 25 * HOUR, NOW, NOW + 5 * MINUTE):
        assert replayed_time(stated, NOW) == EventTime(stated)
    with pytest.raises(ContractError, match="5 minutes in the future"):
        replayed_time(NOW + 5 * MINUTE + 1, NOW)


def test_refusals_say_how_late_is_too_late_and_what_to_do() -> None:
    with pytest.raises(ContractError, match="15 minutes old; backfills need the scope replay"):
        event_time(NOW - HOUR, NOW, LATE, refuse=True)
    with pytest.raises(ContractError, match=r"1\.5 seconds old"):
        event_time(NOW - HOUR, NOW, 1500, refuse=True)


def test_an_event_is_the_transaction_and_when_it_was_known() -> None:
    one = transaction()
    raw = encode_event(one, encode_transaction(one), EventTimes(77))
    parsed, event_ms, minor, altered, times = parse_event(raw)
    assert (parsed, event_ms, minor, altered) == (one, one.event_ms, 1230, False)
    assert times == EventTimes(77)


def test_an_event_that_counts_at_another_time_keeps_the_stated_one() -> None:
    one = transaction(latitude=52.5, longitude=13.4)
    told = EventTimes(77, 1_234, one.event_ms)
    parsed, event_ms, _, _, times = parse_event(
        encode_event(one, encode_transaction(one), told, one.event_ms + 1_234)
    )
    assert event_ms == one.event_ms + 1_234
    assert (parsed.amount, parsed.latitude, times) == (one.amount, one.latitude, told)


def test_an_event_of_another_producer_has_no_times_of_the_service() -> None:
    parsed, _, _, _, times = parse_event(encode_transaction(transaction()))
    assert (parsed, times) == (transaction(), None)


@pytest.mark.parametrize(
    "tail", [b',"known_us":-1}', b',"known_us":"x"}', b',"known_us":1,"other":2}', b',"known_us":1}}', b',"known_us":']
)  # fmt: skip
def test_what_only_looks_like_the_services_times_is_held_to_the_contract(tail: bytes) -> None:
    with pytest.raises(ContractError):
        parse_event(encode_transaction(transaction())[:-1] + tail)


@pytest.mark.parametrize("field", ["known_us", "lateness_ms", "stated_ms", "decision"])
def test_a_client_cannot_send_the_fields_of_an_event(field: str) -> None:
    with pytest.raises(ContractError, match=f"{field}: is not a field of the contract"):
        transaction(**{field: 1})


@pytest.mark.parametrize("decision", ["APPROVE", "REVIEW", "BLOCK"])
def test_what_was_decided_travels_with_the_event(decision: Decision) -> None:
    one = transaction()
    times = EventTimes(LATEST_MS * 1000 - 1, (1 << 40) - 1, LATEST_MS - 1, decision)
    event = encode_event(one, encode_transaction(one), times, moved_ms=NOW)
    assert parse_event(event)[-1] == times
