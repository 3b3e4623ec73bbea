"""Money is integers: exact in minor units, half up in reference cents."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.contract import money
from fraud.contract.money import MINOR_DIGITS, REFERENCE_CAP, decimal_amount, minor_units, reference_cents
from fraud.contract.transaction import LARGEST_AMOUNT

currencies = st.sampled_from(sorted(MINOR_DIGITS))


def test_every_currency_has_a_rate() -> None:
    assert sorted(MINOR_DIGITS) == sorted(money._REFERENCE_RATE)


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
    exact = Fraction(minor, 10 ** MINOR_DIGITS[currency]) * money._REFERENCE_RATE[currency] / 10_000
    rounded = int((Decimal(exact.numerator) / Decimal(exact.denominator)).to_integral_value(ROUND_HALF_UP))
    found = reference_cents(minor, currency)
    assert found == min(rounded, REFERENCE_CAP)
    assert abs(found - exact) <= Fraction(1, 2) or found == REFERENCE_CAP


def test_a_dollar_is_a_hundred_reference_cents() -> None:
    assert reference_cents(100, "USD") == 100
    assert reference_cents(100, "JPY") == 67
    assert reference_cents(1_000, "KWD") == 3250
    assert reference_cents(2_000, "HUF") == 6  # 5.5
    assert reference_cents(10**12, "USD") == REFERENCE_CAP


@given(st.integers(0, LARGEST_AMOUNT - 1), currencies)
def test_more_money_is_never_less_in_reference_cents(minor: int, currency: str) -> None:
    assert reference_cents(minor, currency) <= reference_cents(minor + 1, currency)
