"""What the door says, word for word, and where exactly it says it: a client mends a payment by these sentences."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from fraud.contract.attributes import LONGEST_ATTRIBUTE, MOST_ATTRIBUTES, check_attributes
from fraud.contract.refusal import ContractError
from fraud.contract.transaction import (
    canonical_id,
    canonical_time,
    check,
    declare_cardless,
    parse_measured,
    parse_transaction,
    searched_fields,
)

#: 2026-03-01T12:00:00.250Z, by `date -ud 2026-03-01T12:00:00Z +%s`.
NOW_MS = 1_772_366_400_250
WHOLE: dict[str, Any] = {
    "transaction_id": "t-1", "event_time": "2026-03-01T12:00:00.250Z", "customer_id": "c-1", "card_id": "k-1",
    "merchant_id": "m-1", "amount": "12.34", "currency": "EUR", "channel": "pos", "terminal_id": "term-1",
    "device_id": "d-1", "ip": "203.0.113.7", "merchant_category": "5411", "country": "DE", "latitude": 52.5,
    "longitude": 13.4,
}  # fmt: skip
#: Visa's test number, as processors publish it.
CARD = "4111111111111111"
TOKEN = "looks like a card number; send a token instead"


def raw(**changes: Any) -> bytes:
    body = {name: value for name, value in (WHOLE | changes).items() if value is not ...}
    return json.dumps(body, ensure_ascii=False).encode()


def refusal(body: bytes, **options: Any) -> tuple[str, str]:
    with pytest.raises(ContractError) as caught:
        parse_transaction(body, **options)
    assert str(caught.value) == f"{caught.value.field}: {caught.value.reason}"
    return caught.value.field, caught.value.reason


SENTENCES = [
    ({"transaction_id": ""}, "transaction_id", "should be a string of 1 to 64 characters"),
    ({"transaction_id": "x" * 129}, "transaction_id", "should be a string of 1 to 64 characters"),
    ({"customer_id": "x" * 65}, "customer_id", "should be a string of 1 to 64 characters"),
    ({"customer_id": " "}, "customer_id", "should be a string of 1 to 64 characters"),
    ({"card_id": ...}, "card_id", "is missing; it should be a card token of 1 to 64 characters, never a card number"),
    ({"card_id": CARD}, "card_id", TOKEN),
    ({"merchant_id": "a\u200bb"}, "merchant_id", "holds a control character or another one that cannot be seen"),
    ({"event_time": "yesterday"}, "event_time", "should be an RFC 3339 time with an offset, such as 2026-03-01T12:00:00.250Z"),
    ({"event_time": "1999-12-31T23:59:59.999Z"}, "event_time", "is before 2000-01-01"),
    ({"event_time": "9999-01-01T00:00:00Z"}, "event_time", "is after the year 9998"),
    ({"amount": "-0.01"}, "amount", 'should be a decimal of at least 0, as a string or a number, such as "12.34"'),
    ({"amount": "NaN"}, "amount", 'should be a decimal of at least 0, as a string or a number, such as "12.34"'),
    ({"amount": "12.345"}, "amount", "has more than 2 decimals, the minor unit of EUR"),
    ({"amount": "1.5", "currency": "JPY"}, "amount", "has more than 0 decimals, the minor unit of JPY"),
    ({"amount": "1e300"}, "amount", "is above the largest accepted, 1000000000000 minor units"),
    ({"amount": "10000000000.01"}, "amount", "is above the largest accepted, 1000000000000 minor units"),
    ({"currency": "EURO"}, "currency", "should be an ISO 4217 code of a currency with a minor unit, such as EUR"),
    ({"currency": "XAU"}, "currency", "should be an ISO 4217 code of a currency with a minor unit, such as EUR"),
    ({"channel": "phone"}, "channel", "should be one of pos, ecom, atm, moto, transfer"),
    ({"terminal_id": 7}, "terminal_id", "should be a string of 1 to 64 characters, or absent"),
    ({"ip": "300.1.1.1"}, "ip", "should be one IPv4 or IPv6 address, or absent"),
    ({"merchant_category": 1_000_000}, "merchant_category", "should be a string of 1 to 64 characters, a whole number, or absent"),
    ({"country": "de"}, "country", "should be an ISO 3166 alpha-2 code in capitals, or absent"),
    ({"latitude": 91}, "latitude", "should be degrees between -90 and 90, or absent"),
    ({"longitude": 181}, "longitude", "should be degrees between -180 and 180, or absent"),
    ({"latitude": ...}, "latitude", "is absent while the other coordinate is given"),
    ({"longitude": None}, "longitude", "is absent while the other coordinate is given"),
    ({"colour": "red"}, "colour", "is not a field of the contract"),
    ({CARD: 1}, "[card number]", "is not a field of the contract"),
    ({"z" * 99: 1}, "z" * 64, "is not a field of the contract"),
    ({"attributes": 7}, "attributes", "should be an object of strings, numbers and booleans"),
    ({"attributes": {"a": [1]}}, "attributes", "should be an object of strings, numbers and booleans"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "field", "reason"), SENTENCES)
def test_each_refusal_names_the_field_and_what_it_should_be(
    changes: dict[str, Any], field: str, reason: str
) -> None:
    assert refusal(raw(**changes)) == (field, reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "is not valid JSON"),
        (b'{"transaction_id": "\xff"}', "is not valid JSON"),
        (b"[" * 16_000, "should be a JSON object that holds one transaction"),
        (b"[]", "should be a JSON object that holds one transaction"),
        (b"7", "should be a JSON object that holds one transaction"),
        (b" " * 16_385, "larger than 16384 bytes"),
        (b" " * 16_384, "is not valid JSON"),
    ],
)
def test_what_is_no_transaction_is_refused_as_a_body(body: bytes, reason: str) -> None:
    assert refusal(body) == ("(body)", reason)


def test_a_key_given_twice_is_refused_by_its_name() -> None:
    assert refusal(raw()[:-1] + b', "amount": "1.00"}') == ("amount", "is given twice")
    escaped = raw()[:-1].replace(b'"12.34"', b'"12.34", "am\\u006funt": "1.00"') + b"}"
    assert refusal(escaped) == ("amount", "is given twice")


def test_an_event_may_be_five_minutes_ahead_of_the_receiver_to_the_millisecond() -> None:
    assert parse_transaction(raw(), now_ms=NOW_MS - 300_000).event_ms == NOW_MS
    assert refusal(raw(), now_ms=NOW_MS - 300_001) == ("event_time", "is more than 5 minutes in the future")


@pytest.mark.parametrize(
    ("time", "event_ms"),
    [("2000-01-01T00:00:00Z", 946_684_800_000), ("9998-12-31T23:59:59.999Z", 253_370_764_799_999)],
)
def test_the_first_and_the_last_moment_that_are_taken(time: str, event_ms: int) -> None:
    assert parse_transaction(raw(event_time=time)).event_ms == event_ms


def test_the_largest_amount_is_taken_and_a_cent_more_is_not() -> None:
    assert parse_transaction(raw(amount="10000000000.00")).amount_minor == 10**12
    assert parse_transaction(raw(amount="1000000000000", currency="JPY")).amount_minor == 10**12
    too_large = ("amount", "is above the largest accepted, 1000000000000 minor units")
    assert refusal(raw(amount="1000000000001", currency="JPY")) == too_large


def test_an_amount_printed_from_a_float_is_the_amount_that_was_meant() -> None:
    transaction, _, minor, _ = parse_measured(raw(amount="304.09999999999997"))
    assert (minor, transaction.amount) == (30_410, Decimal("304.10"))
    assert refusal(raw(amount="304.0999"))[1] == "has more than 2 decimals, the minor unit of EUR"


def test_an_amount_has_the_decimals_of_its_currency_after_parsing() -> None:
    for written, currency, kept in (
        ("5", "EUR", "5.00"),
        ("5.0", "JPY", "5"),
        ("0", "BHD", "0.000"),
        (5, "EUR", "5.00"),
    ):
        amount = parse_transaction(raw(amount=written, currency=currency)).amount
        assert str(amount) == kept


#: What is sent, what becomes of it, and whether that counts as another form than the canonical one.
FORMS = [
    ({}, {}, False),
    ({"device_id": ""}, {"device_id": None}, True),
    ({"terminal_id": "", "ip": "", "merchant_category": "", "country": ""},
     {"terminal_id": None, "ip": None, "merchant_category": None, "country": None}, True),
    ({"device_id": None}, {"device_id": None}, False),
    ({"merchant_id": " m-1 "}, {"merchant_id": "m-1"}, True),
    ({"merchant_id": "m 1"}, {"merchant_id": "m 1"}, False),
    ({"merchant_id": "Cafe\u0301"}, {"merchant_id": "Caf\u00e9"}, True),
    ({"merchant_id": "Caf\u00e9"}, {"merchant_id": "Caf\u00e9"}, False),
    ({"merchant_category": 5411}, {"merchant_category": "5411"}, True),
    ({"ip": "203.0.113.7:443"}, {"ip": "203.0.113.7"}, True),
    ({"ip": "2001:DB8::1"}, {"ip": "2001:db8::1"}, True),
    ({"ip": "2001:db8::1"}, {"ip": "2001:db8::1"}, False),
    ({"country": " DE"}, {"country": "DE"}, True),
    ({"latitude": 0, "longitude": 0}, {"latitude": None, "longitude": None}, True),
    ({"latitude": 0, "longitude": 13.4}, {"latitude": 0.0, "longitude": 13.4}, True),
    ({"latitude": 52.5, "longitude": 0}, {"latitude": 52.5, "longitude": 0.0}, True),
    ({"latitude": 7, "longitude": 7}, {"latitude": 7.0, "longitude": 7.0}, False),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "kept", "altered"), FORMS)
def test_what_can_be_spelt_in_many_ways_is_kept_in_one(
    changes: dict[str, Any], kept: dict[str, Any], altered: bool
) -> None:
    transaction, event_ms, minor, found = parse_measured(raw(**changes))
    assert (event_ms, minor, found) == (NOW_MS, 1234, altered)
    for field, value in ({**WHOLE, **kept, "amount": Decimal("12.34")} | {"event_time": ...}).items():
        if value is not ...:
            assert getattr(transaction, field) == value


def test_no_degree_is_minus_nought() -> None:
    transaction = parse_transaction(raw(latitude=-0.0, longitude=13.4))
    assert str(transaction.latitude) == "0.0"
    assert str(parse_transaction(raw(latitude=52.5, longitude=-0.0)).longitude) == "0.0"


@pytest.mark.parametrize(
    "time", ["2026-03-01T12:00:00.250Z", "2026-03-01T13:00:00.250999+01:00", "2026-03-01T12:00:00.2509999Z"]
)
def test_an_event_time_is_kept_in_utc_and_whole_milliseconds(time: str) -> None:
    moment = parse_transaction(raw(event_time=time)).event_time
    assert moment == datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC) and moment.tzinfo is UTC
    assert canonical_time(moment + timedelta(microseconds=999)) == moment
    elsewhere = moment.astimezone(timezone(timedelta(hours=5)))
    assert canonical_time(elsewhere) == moment and canonical_time(elsewhere).tzinfo is UTC


def test_before_1970_a_time_is_cut_off_downwards_too() -> None:
    before = datetime(1969, 12, 31, 23, 59, 59, 999_500, UTC)
    assert canonical_time(before) == datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC)


@pytest.mark.parametrize(
    ("text", "kept"), [("t-1", "t-1"), (" t-1", "t-1"), ("e\u0301", "\u00e9"), ("t 1", "t 1")]
)
def test_an_id_alone_has_the_form_that_transactions_have_it_in(text: str, kept: str) -> None:
    assert canonical_id(text) == kept


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        ("", "transaction_id", "should be a string of 1 to 64 characters"),
        (" ", "transaction_id", "should be a string of 1 to 64 characters"),
        ("a\tb", "transaction_id", "holds a control character or another one that cannot be seen"),
        (CARD, "transaction_id", TOKEN),
        (CARD, "card_id", TOKEN),
        ("", "card_id", "should be a card token of 1 to 64 characters, never a card number"),
    ],
)
def test_an_id_that_is_none_is_refused_under_its_fields_name(text: str, field: str, reason: str) -> None:
    with pytest.raises(ContractError) as caught:
        canonical_id(text, field)
    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_fields_that_are_declared_to_hold_no_card_are_not_searched() -> None:
    every = searched_fields()
    assert len(every) == 9 and "card_id" in every and "country" not in every
    try:
        declare_cardless(["merchant_id", "device_id"])
        assert searched_fields() == tuple(name for name in every if name not in ("merchant_id", "device_id"))
        assert parse_transaction(raw(merchant_id=CARD)).merchant_id == CARD
        assert canonical_id(CARD, "merchant_id") == CARD
        assert refusal(raw(customer_id=CARD)) == ("customer_id", TOKEN)
        with pytest.raises(
            ValueError, match=r"^amount, colour: should be among transaction_id, customer_id, card_id, "
        ):
            declare_cardless(["colour", "amount", "device_id"])
        assert "device_id" not in searched_fields()
    finally:
        declare_cardless(())
    assert searched_fields() == every


def test_a_transaction_that_was_searched_before_is_not_searched_again() -> None:
    transaction = parse_transaction(raw(attributes={"note": "x"}))
    hidden = parse_transaction(raw(card_id="k-1"))
    assert check(hidden) == check(hidden, suspicious=False) == (NOW_MS, 1234)
    declare_cardless(["merchant_id"])
    try:
        card = parse_transaction(raw(merchant_id=CARD))
    finally:
        declare_cardless(())
    with pytest.raises(ContractError, match="card number"):
        check(card)
    assert check(card, suspicious=False) == (NOW_MS, 1234)
    assert check(transaction, now_ms=NOW_MS - 300_000) == (NOW_MS, 1234)


def of_attributes(given: dict[str, Any], suspicious: bool = True) -> tuple[str, str] | None:
    try:
        check_attributes(given, suspicious)
    except ContractError as error:
        return error.field, error.reason
    return None


NAMES = "should have names of small letters, digits and _, at most 63"


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({}, None),
        ({f"a{number}": number for number in range(MOST_ATTRIBUTES)}, None),
        (
            {f"a{number}": 1 for number in range(MOST_ATTRIBUTES + 1)},
            ("attributes", "should have at most 32 fields"),
        ),
        ({"a" * 63: 1, "b_2": True, "c": None}, None),
        ({"a" * 64: 1}, ("attributes", NAMES)),
        ({"A": 1}, ("attributes", NAMES)),
        ({"1a": 1}, ("attributes", NAMES)),
        ({"": 1}, ("attributes", NAMES)),
        ({"a": "x" * LONGEST_ATTRIBUTE}, None),
        ({"a": "x" * 257}, ("attributes.a", "is longer than 256 characters")),
        ({"a": float("nan")}, ("attributes.a", "should be a finite number")),
        ({"a": float("inf")}, ("attributes.a", "should be a finite number")),
        ({"a": CARD}, ("attributes.a", TOKEN)),
        ({"ok": 1, "b": "4222222222222"}, ("attributes.b", TOKEN)),  # 13 digits, the shortest that Visa had
        ({"a": 4.111111111111111e15}, ("attributes.a", TOKEN)),
        (
            {"a": "501800000009"},
            ("attributes.a", TOKEN),
        ),  # Maestro's test number of 12 digits, the shortest of all
        ({"a": 501800000009.0}, ("attributes.a", TOKEN)),
        ({"a": -4.111111111111111e15}, ("attributes.a", TOKEN)),
        ({"a": 4.2222222222222e12}, ("attributes.a", TOKEN)),
        ({"a": 1.5e14}, None),
    ],
)
def test_attributes_are_held_to_their_bounds(given: dict[str, Any], refused: tuple[str, str] | None) -> None:
    assert of_attributes(given) == refused


def test_attributes_that_were_searched_before_are_not_searched_again() -> None:
    assert of_attributes({"a": CARD}, suspicious=False) is None
    # The bytes of a number may have been 4.111111111111111e15, in which nobody finds its digits.
    assert of_attributes({"a": 4.111111111111111e15}, suspicious=False) == ("attributes.a", TOKEN)
    assert of_attributes({"a": "x" * 257}, suspicious=False) == (
        "attributes.a",
        "is longer than 256 characters",
    )


def test_attributes_are_checked_at_the_door() -> None:
    assert parse_transaction(raw(attributes={"tier": "gold", "age": 3, "new": True})).attributes == {
        "tier": "gold", "age": 3.0, "new": True,
    }  # fmt: skip
    assert refusal(raw(attributes={"A": 1})) == ("attributes", NAMES)
    assert refusal(raw(attributes={"a": CARD})) == ("attributes.a", TOKEN)
    assert refusal(raw()[:-1] + b', "attributes": {"a": 1, "a": 2}}') == ("a", "is given twice")
