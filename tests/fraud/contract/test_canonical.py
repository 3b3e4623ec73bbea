"""What means the same has one form, whatever spelt it; what readers would disagree on is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fraud.contract.transaction import (
    ContractError,
    Transaction,
    declare_cardless,
    encode_transaction,
    parse_measured,
    parse_transaction,
)

BASE: dict[str, Any] = {
    "transaction_id": "t-1", "event_time": "2026-02-19T12:00:00Z", "customer_id": "c-1", "card_id": "token-1",
    "merchant_id": "m-1", "amount": "12.30", "currency": "EUR", "channel": "ecom",
}  # fmt: skip
CANONICAL = (
    b'{"transaction_id":"t-1","event_time":"2026-02-19T12:00:00Z","customer_id":"c-1","card_id":"token-1",'
    b'"merchant_id":"m-1","amount":"12.30","currency":"EUR","channel":"ecom"}'
)
PLACE = {"latitude": 52.52, "longitude": 13.4}


def body(**changes: Any) -> bytes:
    return json.dumps(BASE | changes).encode()


def canonical(raw: bytes) -> bytes:
    return encode_transaction(parse_transaction(raw))


def refusal(raw: bytes) -> ContractError:
    with pytest.raises(ContractError) as caught:
        parse_transaction(raw)
    return caught.value


def raw_amount(text: str) -> bytes:
    return body().replace(b'"12.30"', text.encode())


RETRIES = {
    "as it was": body(),
    "without blanks": json.dumps(BASE, separators=(",", ":")).encode(),
    "indented": json.dumps(BASE, indent=2).encode(),
    "in another order": json.dumps(dict(reversed(BASE.items()))).encode(),
    "a shorter decimal": body(amount="12.3"),
    "a number": raw_amount("12.3"),
    "a number with noughts": raw_amount("12.3000"),
    "a power of ten": raw_amount("1.23e1"),
    "a sum of floats": raw_amount("12.299999999999999"),
    "another offset": body(event_time="2026-02-19T13:00:00+01:00"),
    "an offset of nothing": body(event_time="2026-02-19T12:00:00.000-00:00"),
    "microseconds": body(event_time="2026-02-19T12:00:00.000999Z"),
    "ten digits of a second": body(event_time="2026-02-19T12:00:00.0009999999Z"),
    "nulls": body(device_id=None, country=None, latitude=None),
    "empty": body(device_id="", country="", ip="", terminal_id="", merchant_category=""),
    "blank": body(device_id="  ", country=" "),
    "blanks around": body(customer_id=" c-1", card_id="token-1 ", merchant_id="\u00a0m-1"),
    "nowhere": body(latitude=0, longitude=0.0),
    "minus nowhere": body(latitude=-0.0, longitude=0),
    "escaped": body().replace(b"token-1", b"\\u0074oken-1"),
    "an escaped name": body().replace(b"merchant_id", b"m\\u0065rchant_id"),
}


@pytest.mark.parametrize("spelling", RETRIES)
def test_a_retry_spelt_otherwise_is_the_same_request(spelling: str) -> None:
    assert canonical(RETRIES[spelling]) == CANONICAL


SAME = [
    ({"ip": "203.0.113.7"}, {"ip": "::ffff:203.0.113.7"}),
    ({"ip": "203.0.113.7"}, {"ip": "203.0.113.7:443"}),
    ({"ip": "2001:db8::1"}, {"ip": "2001:DB8:0:0:0:0:0:1"}),
    ({"ip": "2001:db8::1"}, {"ip": "[2001:0db8::0001]:8080"}),
    ({"ip": "fe80::1"}, {"ip": "fe80::1%eth0"}),
    ({"merchant_category": "5411"}, {"merchant_category": 5411}),
    ({"customer_id": "Zo\u00eb"}, {"customer_id": "Zoe\u0308"}),
    ({"latitude": 0.0, "longitude": 13.4}, {"latitude": -0.0, "longitude": 13.4}),
    ({"latitude": 52, "longitude": 13}, {"latitude": 52.0, "longitude": 13.0}),
    ({"amount": "0"}, {"amount": "-0.00"}),
    ({"amount": "1000", "currency": "JPY"}, {"amount": "1000.00", "currency": "JPY"}),
    ({"amount": "1.5", "currency": "KWD"}, {"amount": 1.5, "currency": "KWD"}),
    ({"amount": "304.10"}, {"amount": 304.09999999999997}),
    ({"amount": "304.10"}, {"amount": "304.09999999999997"}),
    ({"amount": "0.30"}, {"amount": 0.1 + 0.2}),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=str)
def test_what_means_the_same_has_one_form(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert canonical(body(**one)) == canonical(body(**other))


DIFFERENT = [
    ({"amount": "12.30"}, {"amount": "12.31"}),
    ({"event_time": "2026-02-19T12:00:00.001Z"}, {"event_time": "2026-02-19T12:00:00.002Z"}),
    ({"customer_id": "c-1"}, {"customer_id": "C-1"}),
    ({"ip": "203.0.113.7"}, {"ip": "203.0.113.8"}),
    ({"merchant_category": "0742"}, {"merchant_category": "742"}),
    (PLACE, PLACE | {"latitude": 52.520001}),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=str)
def test_what_differs_stays_different(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert canonical(body(**one)) != canonical(body(**other))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-02-19T23:59:59.9999999Z", "2026-02-19T23:59:59.999Z"),
        ("2026-02-19T23:59:59.9999995Z", "2026-02-19T23:59:59.999Z"),
        ("2026-02-19 23:59:59.9999999Z", "2026-02-19T23:59:59.999Z"),
        ("2026-12-31T23:59:59.999999999999+00:00", "2026-12-31T23:59:59.999Z"),
        ("2026-02-19T18:59:59.99999999-05:00", "2026-02-19T23:59:59.999Z"),
        ("2026-02-19T12:00:00.1239999Z", "2026-02-19T12:00:00.123Z"),
        ("2026-02-19T12:00:00.123999Z", "2026-02-19T12:00:00.123Z"),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")])
def test_fractions_of_a_second_are_cut_off_and_never_rounded_into_another_day(
    written: str, meant: str, separators: tuple[str, str]
) -> None:
    raw = json.dumps(BASE | {"event_time": written}, separators=separators).encode()
    assert parse_transaction(raw).event_time == datetime.fromisoformat(meant)


@given(
    st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
    st.text("0123456789", max_size=12),
    st.sampled_from([None, 2]),
)
@settings(max_examples=300, deadline=None)
def test_any_time_is_cut_off_at_its_millisecond(
    moment: datetime, offset: int, digits: str, indent: int | None
) -> None:
    whole = moment.replace(microsecond=0)
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    fraction = f".{digits}" if digits else ""
    written = f"{whole.isoformat()}{fraction}{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    raw = json.dumps(BASE | {"event_time": written}, indent=indent).encode()
    expected = whole.replace(tzinfo=UTC) - timedelta(minutes=offset)
    expected += timedelta(milliseconds=int(digits[:3].ljust(3, "0")))
    assert parse_transaction(raw).event_time == expected


TWICE = {
    "the same": CANONICAL[:-1] + b',"card_id":"token-1"}',
    "another": CANONICAL[:-1] + b',"card_id":"token-2"}',
    "with blanks": CANONICAL[:-1] + b' , "card_id" : "token-2" }',
    "an optional one": CANONICAL[:-1] + b',"ip":"203.0.113.7","ip":"203.0.113.8"}',
    "null first": CANONICAL[:-1] + b',"ip":null,"ip":"203.0.113.8"}',
    "null last": CANONICAL[:-1] + b',"ip":"203.0.113.8","ip":null}',
    "hidden by an escape": CANONICAL[:-1] + b',"c\\u0061rd_id":"token-2"}',
    "beside a comma in a text": CANONICAL.replace(b"c-1", b"c,1")[:-1] + b',"card_id":"token-2"}',
    "beside what is not ASCII": CANONICAL.replace(b"c-1", "ü".encode())[:-1] + b',"card_id":"token-2"}',
}


@pytest.mark.parametrize("kind", TWICE)
def test_a_field_given_twice_is_refused_by_name(kind: str) -> None:
    error = refusal(TWICE[kind])
    assert error.field == ("ip" if b'"ip"' in TWICE[kind] else "card_id")
    assert error.reason == "is given twice"


@given(
    st.lists(st.sampled_from([*BASE, "ip", "country", "latitude", "longitude", "device_id"]), max_size=4),
    st.sampled_from(["x,y", "x", "ü", 'q"', "a:b"]),
    st.sampled_from([None, 1]),
)
def test_a_body_is_refused_exactly_if_it_names_a_field_twice(
    more: list[str], customer: str, indent: int | None
) -> None:
    known = BASE | PLACE | {"customer_id": customer, "ip": "203.0.113.7", "country": "DE", "device_id": None}
    raw = json.dumps(known, indent=indent).encode()
    for name in more:
        raw = (
            raw.rstrip(b"\n}")
            + b", "
            + json.dumps(name).encode()
            + b": "
            + json.dumps(known[name]).encode()
            + b"}"
        )
    try:
        parse_transaction(raw)
        refused = False
    except ContractError:
        refused = True
    assert refused == bool(more)


@pytest.mark.finding("H3", "high", "a number of 4,301 digits beside a field that is null ended the flow")
@given(
    st.sampled_from(["amount", "merchant_category", "latitude", "attributes"]),
    st.integers(1, 6_000),
    st.sampled_from(["", ".0", "e0", "e-6000", "e99999", "e-99999999999999999999"]),
    st.sampled_from([b"}", b',"ip":null}']),
)
@example("amount", 4_301, "", b',"ip":null}')  # the shortest number that Python does not convert
def test_a_number_of_any_length_is_taken_or_refused_by_its_field(
    field: str, digits: int, ends: str, end: bytes
) -> None:
    known = {name: json.dumps(value) for name, value in (BASE | PLACE).items()}
    number = "1" + "0" * (digits - 1) + ends
    known[field] = f'{{"own":{number}}}' if field == "attributes" else number
    raw = ("{" + ",".join(f'"{name}":{value}' for name, value in known.items())).encode() + end
    try:
        parse_transaction(raw)
    except ContractError as error:
        assert error.field in (field, "(body)")


CONTROL = ["\x00", "\n", "\t", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\u200b", "\ufeff"]


@pytest.mark.parametrize("unseen", CONTROL, ids=ascii)
@pytest.mark.parametrize("field", ["transaction_id", "customer_id", "device_id", "ip", "country"])
@pytest.mark.parametrize("escaped", [True, False])
def test_what_cannot_be_seen_is_refused_by_the_name_of_its_field(
    unseen: str, field: str, escaped: bool
) -> None:
    raw = json.dumps(BASE | {field: f"a{unseen}b"}, ensure_ascii=escaped).encode()
    assert refusal(raw).field == field
    assert "cannot be seen" in refusal(raw).reason


@pytest.mark.parametrize(
    "text", ["Łódź", "顧客-7", "naïve café", "a b c", "ünïcode", "it's", 'a"b', "back\\slash"]
)
def test_text_of_any_language_is_text(text: str) -> None:
    assert parse_transaction(body(customer_id=text)).customer_id == text


@pytest.mark.parametrize(
    "wrong",
    ["999.1.1.1", "203.0.113", "203.0.113.007", "2001:db8::1::2", "203.0.113.7, 10.0.0.1", ":", "1.2.3.4/24"],
)
def test_what_is_meant_as_an_address_and_is_none_is_refused(wrong: str) -> None:
    assert refusal(body(ip=wrong)).field == "ip"


def test_a_token_of_an_address_is_taken_as_it_is() -> None:
    assert parse_transaction(body(ip="ip_9f86d081884c7d65")).ip == "ip_9f86d081884c7d65"


@given(st.ip_addresses())
def test_every_address_has_one_form_which_means_the_same(address: Any) -> None:
    found = parse_transaction(body(ip=address.exploded)).ip
    assert found is not None
    mapped = getattr(address, "ipv4_mapped", None)
    assert ip_address(found) == (mapped or address)
    assert parse_transaction(body(ip=found)).ip == found


@pytest.mark.parametrize("amount", ["57.1600001", "1.005", "12.345", "0." + "0" * 40 + "1", "1e-40"])
def test_an_amount_that_is_no_sum_of_floats_is_refused(amount: str) -> None:
    assert refusal(body(amount=amount)).field == "amount"
    assert refusal(raw_amount(amount)).field == "amount"


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=30))
def test_a_basket_summed_in_floats_is_the_sum_of_its_cents(cents: list[int]) -> None:
    total = sum(each / 100 for each in cents)
    assert parse_transaction(raw_amount(repr(total))).amount == Decimal(sum(cents)).scaleb(-2)


def test_what_was_in_canonical_form_is_said_to_be() -> None:
    assert not parse_measured(CANONICAL)[3]
    for name in ("empty", "blanks around", "nowhere"):
        assert parse_measured(RETRIES[name])[3]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_canonical_form_is_its_own(data: st.DataObject) -> None:
    text = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from([" a", "Zoe\u0308", "x "])
    changes = data.draw(
        st.dictionaries(
            st.sampled_from(["customer_id", "device_id", "terminal_id", "merchant_category", "ip"]), text
        )
    )
    try:
        once = canonical(body(**changes))
    except ContractError:
        return
    assert canonical(once) == once
    assert not parse_measured(once)[3]
    assert msgspec.json.decode(once, type=Transaction) == parse_transaction(once)


def test_a_field_that_is_declared_to_hold_no_card_is_not_searched() -> None:
    number = "4" + "1" * 15
    try:
        declare_cardless(["transaction_id"])
        assert parse_transaction(body(transaction_id=number)).transaction_id == number
        assert refusal(body(transaction_id=number, card_id=number)).field == "card_id"
        with pytest.raises(ValueError, match="amount: should be among transaction_id"):
            declare_cardless(["amount"])
    finally:
        declare_cardless(())
    assert refusal(body(transaction_id=number)).field == "transaction_id"
