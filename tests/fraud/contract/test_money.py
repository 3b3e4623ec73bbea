"""Money is integers: exact in minor units, half up in reference cents."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.contract import money
from fraud.contract.money import MINOR_DIGITS, REFERENCE_CAP, decimal_amount, minor_units, reference_cents
from fraud.contract.reference_rates import USD
from fraud.contract.transaction import LARGEST_AMOUNT, parse_transaction
from fraud.features.request import request_row

currencies = st.sampled_from(sorted(MINOR_DIGITS))


def test_every_currency_has_a_rate() -> None:
    assert set(money.CURRENCIES) == set(USD)


#: Numeric codes and minor units as ISO 4217's list one has them (SIX, 1 January 2026).
KNOWN = {
    "EUR": (978, 2), "USD": (840, 2), "JPY": (392, 0), "BHD": (48, 3), "NGN": (566, 2), "COP": (170, 2),
    "ARS": (32, 2), "EGP": (818, 2), "JOD": (400, 3), "XOF": (952, 0), "UAH": (980, 2), "KES": (404, 2),
    "PKR": (586, 2), "MAD": (504, 2), "IQD": (368, 3), "CLF": (990, 4), "ISK": (352, 0), "HUF": (348, 2),
    "UGX": (800, 0), "VND": (704, 0), "XPF": (953, 0), "ZWG": (924, 2), "XCG": (532, 2),
}  # fmt: skip


@pytest.mark.parametrize("code", KNOWN)
def test_currencies_have_the_numbers_and_digits_of_the_standard(code: str) -> None:
    assert money.CURRENCIES[code] == KNOWN[code]


def test_what_has_no_minor_unit_is_no_currency_of_a_payment() -> None:
    assert not {"XXX", "XTS", "XAU", "XDR", ""} & set(money.CURRENCIES)
    assert len(money.CURRENCIES) > 165


def test_the_code_of_a_currency_does_not_depend_on_the_others() -> None:
    """An added currency must not renumber a model's feature: ISO's number is the code."""
    body = {
        "transaction_id": "t", "event_time": "2026-01-01T00:00:00Z", "customer_id": "c", "card_id": "k",
        "merchant_id": "m", "amount": "1", "channel": "pos",
    }  # fmt: skip
    for code, (number, _) in KNOWN.items():
        transaction = parse_transaction(json.dumps(body | {"currency": code}).encode())
        assert request_row(transaction)["currency_code"] == number


def test_rates_are_replaced_as_a_whole_or_not_at_all() -> None:
    digest = money.rates_digest()
    for rates, message in (
        ({"EUR": "1.08"}, "has no rate for AED"),
        (USD | {"EUR": "soon"}, "EUR: should be a decimal"),
        (USD | {"EUR": "0"}, "EUR: should be above 0"),
        (USD | {"EUR": "NaN"}, "EUR: should be"),
        (USD | {"USD": "1.1"}, "a dollar is worth 1"),
        (USD | {"XXX": "1"}, "XXX is not a currency"),
    ):
        with pytest.raises(ValueError, match=message):
            money.use_rates(rates)
        assert money.rates_digest() == digest
    try:
        money.use_rates(USD | {"EUR": "2"})
        assert reference_cents(100, "EUR") == 200
        assert money.rates_digest() != digest
    finally:
        money.use_rates(USD)
    assert money.rates_digest() == digest


@given(st.integers(0, LARGEST_AMOUNT), currencies)
def test_minor_units_and_decimals_are_each_others_inverse(minor: int, currency: str) -> None:
    assert minor_units(decimal_amount(minor, currency), currency) == minor


@given(st.integers(0, 10**9), currencies, st.integers(1, 60), st.integers(1, 9))
def test_a_digit_beyond_the_minor_unit_is_refused_however_small(
    minor: int, currency: str, places: int, digit: int
) -> None:
    digits = MINOR_DIGITS[currency] + places
    amount = Decimal(f"{decimal_amount(minor, currency):f}") + Decimal(0)
    text = f"{amount:.{MINOR_DIGITS[currency]}f}"
    text += ("" if "." in text else ".") + "0" * (digits - MINOR_DIGITS[currency] - 1) + str(digit)
    with pytest.raises(ValueError, match="decimals"):
        minor_units(Decimal(text), currency)


@given(st.integers(0, LARGEST_AMOUNT), currencies)
def test_reference_cents_round_half_up_and_are_capped(minor: int, currency: str) -> None:
    exact = Fraction(minor, 10 ** MINOR_DIGITS[currency]) * Fraction(USD[currency]) * 100
    rounded = int((Decimal(exact.numerator) / Decimal(exact.denominator)).to_integral_value(ROUND_HALF_UP))
    found = reference_cents(minor, currency)
    assert found == min(rounded, REFERENCE_CAP)
    assert abs(found - exact) <= Fraction(1, 2) or found == REFERENCE_CAP


def test_a_dollar_is_a_hundred_reference_cents() -> None:
    assert reference_cents(100, "USD") == 100
    assert reference_cents(100, "JPY") == 67
    assert reference_cents(1_000, "KWD") == 325
    assert reference_cents(2_000, "HUF") == 6  # 5.5
    assert reference_cents(10**12, "USD") == REFERENCE_CAP


@given(st.integers(0, LARGEST_AMOUNT - 1), currencies)
def test_more_money_is_never_less_in_reference_cents(minor: int, currency: str) -> None:
    assert reference_cents(minor, currency) <= reference_cents(minor + 1, currency)
