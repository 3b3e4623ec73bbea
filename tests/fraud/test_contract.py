"""The contract's only door: what it lets in, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud.contract.fields import CHANNELS, EXPECTED, FIELDS
from fraud.contract.money import MINOR_DIGITS
from fraud.contract.transaction import (
    FUTURE_TOLERANCE_MS,
    LARGEST_AMOUNT,
    LARGEST_BODY,
    ContractError,
    encode_transaction,
    parse_transaction,
)

SECRET = "zzz-not-to-be-repeated"
WHOLE: dict[str, Any] = {
    "transaction_id": "t-1", "event_time": "2026-03-01T12:00:00.250Z", "customer_id": "c-1",
    "card_id": "token-1", "merchant_id": "m-1",
    "amount": "12.34", "currency": "EUR", "channel": "pos", "terminal_id": "term-1",
    "device_id": "d-1", "ip": "203.0.113.7", "merchant_category": "5411", "country": "DE",
    "latitude": 52.5, "longitude": 13.4,
}  # fmt: skip
REQUIRED = (
    "transaction_id",
    "event_time",
    "customer_id",
    "card_id",
    "merchant_id",
    "amount",
    "currency",
    "channel",
)
TEXTS = (
    "transaction_id",
    "customer_id",
    "card_id",
    "merchant_id",
    "terminal_id",
    "device_id",
    "ip",
    "merchant_category",
)


def raw(**changes: Any) -> bytes:
    """The whole transaction as JSON, changed; `...` leaves a field out."""
    body = {name: value for name, value in (WHOLE | changes).items() if value is not ...}
    return json.dumps(body).encode()


def refusal(body: bytes, **options: Any) -> ContractError:
    with pytest.raises(ContractError) as caught:
        parse_transaction(body, **options)
    return caught.value


def test_a_whole_transaction_survives_the_round_trip() -> None:
    transaction = parse_transaction(raw())
    assert transaction.event_ms == 1_772_366_400_250
    assert transaction.amount_minor == 1234
    assert parse_transaction(encode_transaction(transaction)) == transaction


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in REQUIRED])
@pytest.mark.parametrize("absent", [None, ...])
def test_an_optional_field_may_be_null_or_absent(field: str, absent: object) -> None:
    gone = {"latitude": absent, "longitude": absent} if "itude" in field else {field: absent}
    assert getattr(parse_transaction(raw(**gone)), field) is None


@pytest.mark.parametrize("field", REQUIRED)
@pytest.mark.parametrize("absent", [None, ...])
def test_a_missing_required_field_is_named(field: str, absent: object) -> None:
    error = refusal(raw(**{field: absent}))
    assert error.field == field
    assert EXPECTED[field] in error.reason


def each(fields: Sequence[str], *wrongs: Any) -> list[tuple[str, Any]]:
    return [(field, wrong) for field in fields for wrong in wrongs]


WRONG_TYPES = [
    *each([field for field in TEXTS if field != "merchant_category"], 17),
    *each(["merchant_category"], -1, 54.11),
    *each(TEXTS, True, ["x"], {"a": SECRET}),
    *each(["event_time"], 1_772_366_400, SECRET, True, [SECRET]),
    *each(["amount"], SECRET, True, [12], "12,34", "", "1 2"),
    *each(["currency"], 978, True, None, []),
    *each(["channel"], 1, SECRET, True, "POS"),
    *each(["country"], 49, SECRET, True),
    *each(["latitude", "longitude"], SECRET, True, "52.5", []),
]


@pytest.mark.parametrize(("field", "wrong"), WRONG_TYPES)
def test_a_field_of_the_wrong_type_is_named_and_never_repeated(field: str, wrong: Any) -> None:
    error = refusal(raw(**{field: wrong}))
    assert error.field == field
    assert SECRET not in str(error)


OUT_OF_RANGE = [
    *each([field for field in TEXTS if field in REQUIRED], "", " ", "\u00a0"),
    *each(TEXTS, SECRET * 6),
    *each(["event_time"], "2026-03-01T12:00:00", "2026-13-01T12:00:00Z"),  # no offset; no such month
    *each(["event_time"], "1999-12-31T23:59:59.999Z", "0001-01-01T00:00:00+14:00"),
    *each(["amount"], "-0.01", "12.345", "NaN", "Infinity", "-Infinity", "sNaN", "1e13", -1, 1e300),
    *each(["amount"], "1e999999", "1e-999999", "0." + "0" * 40 + "1", "1." + "0" * 40 + "1"),
    *each(["amount"], str(LARGEST_AMOUNT // 100) + ".01"),
    *each(["currency"], "eur", "XXX", "", "EURO"),
    *each(["country"], "de", "DEU", "D", "D1", "DE\n", "ÄÖ"),
    *each(["latitude"], 90.000001, -91, 1e300, ...),
    *each(["longitude"], 180.000001, -181, 1e300, None),
]


@pytest.mark.parametrize(("field", "wrong"), OUT_OF_RANGE)
def test_a_field_out_of_range_is_named_and_never_repeated(field: str, wrong: Any) -> None:
    error = refusal(raw(**{field: wrong}))
    assert error.field == field
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"17",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b"[" * 16_000,
        b"[" * 100_000,
        raw() + b"{}",
        b"NaN",
    ],
)
def test_what_is_no_json_object_is_refused_as_a_body(body: bytes) -> None:
    assert refusal(body).field == "(body)"


def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    assert "larger" in refusal(raw() + b" " * LARGEST_BODY).reason


def test_an_unknown_field_is_refused_and_named_without_a_card_number() -> None:
    error = refusal(raw(**{"4" + "1" * 15: 1}))
    assert "1" * 15 not in str(error)
    assert refusal(raw(colour="red")).field == "colour"


def test_event_times_are_cut_to_milliseconds_and_moved_to_utc() -> None:
    moved = parse_transaction(raw(event_time="2026-03-01T14:00:00.250999+02:00"))
    assert moved.event_ms == parse_transaction(raw()).event_ms


def test_an_event_from_the_future_is_refused_beyond_the_tolerance() -> None:
    now_ms = parse_transaction(raw()).event_ms - FUTURE_TOLERANCE_MS
    parse_transaction(raw(), now_ms=now_ms)
    assert refusal(raw(), now_ms=now_ms - 1).field == "event_time"


@pytest.mark.parametrize(
    "amount", ["12.34", 12.34, "12.340000", "1234e-2", "0", 0, "0e999999", "0e-999999", "-0", 7]
)
def test_an_amount_may_be_written_in_any_exact_way(amount: object) -> None:
    text = str(amount)
    expected = 1234 if "34" in text else 700 if text == "7" else 0
    assert parse_transaction(raw(amount=amount)).amount_minor == expected


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(datetime(2000, 1, 2), datetime(9998, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(sorted(MINOR_DIGITS)),
    st.integers(0, LARGEST_AMOUNT),
    st.sampled_from(CHANNELS),
)
def test_every_valid_transaction_survives_the_round_trip(
    moment: datetime, offset: int, currency: str, minor: int, channel: str
) -> None:
    there = moment.replace(tzinfo=UTC) + timedelta(minutes=offset)
    digits = MINOR_DIGITS[currency]
    text = str(minor).rjust(digits + 1, "0")
    amount = f"{text[:-digits]}.{text[-digits:]}" if digits else text
    body = raw(
        event_time=there.isoformat(), amount=amount, currency=currency, channel=channel, device_id="ü" * 64
    )
    transaction = parse_transaction(body)
    assert transaction.amount_minor == minor
    assert transaction.event_ms == (there - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    again = parse_transaction(encode_transaction(transaction))
    assert again == transaction
    assert (again.event_ms, again.amount_minor) == (transaction.event_ms, minor)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_input_crashes_the_parser_or_comes_back_in_an_error(data: st.DataObject) -> None:
    body = bytearray(raw())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=12))
    for written in (bytes(body), data.draw(st.binary(max_size=60))):
        try:
            parse_transaction(written)
        except ContractError as error:
            assert error.field == "(body)" or len(error.field) <= 64


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize("escaped", [False, True])
def test_a_card_number_is_refused_in_every_field_however_it_is_written(field: str, escaped: bool) -> None:
    number = "4" + "1" * 15
    body = raw(**{field: f"ref {number[:4]}-{number[4:]}"})
    if escaped:
        body = body.replace(number[4:].encode(), "".join(f"\\u00{ord(c):x}" for c in number[4:]).encode())
    error = refusal(body)
    assert error.field == field
    assert number[4:] not in str(error)
