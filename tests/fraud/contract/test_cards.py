"""Card numbers are found wherever they hide; they are built here at run time."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.contract.cards import looks_like_card_number, luhn_valid, may_hold_card_number, redact


def numbered(prefix: str, length: int) -> str:
    """`prefix` filled up to `length` digits, the last of them the check digit."""
    body = prefix + "0" * (length - len(prefix) - 1)
    return next(body + digit for digit in "0123456789" if luhn_valid(body + digit))


@pytest.mark.parametrize("length", range(13, 20))
@pytest.mark.parametrize("prefix", ["4", "51", "34", "6011", "62", "3528"])
def test_every_length_of_card_number_is_found(prefix: str, length: int) -> None:
    number = numbered(prefix, length)
    assert looks_like_card_number(number)
    assert may_hold_card_number(number.encode())


@pytest.mark.parametrize("length", [8, 11, 12, 20, 25])
def test_shorter_and_longer_numbers_are_not(length: int) -> None:
    assert not looks_like_card_number(numbered("4", length))


@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_exactly_one_check_digit_makes_a_number_valid(body: str) -> None:
    assert sum(luhn_valid(body + digit) for digit in "0123456789") == 1
    wrong = [digit for digit in "0123456789" if not luhn_valid(body + digit)]
    assert not any(looks_like_card_number(body + digit) for digit in wrong)


GROUPED = [
    "{0}{1}{2}{3}",
    "{0} {1} {2} {3}",
    "{0}-{1}-{2}-{3}",
    "{0} {1}-{2} {3}",
    "{0}\u00a0{1}\u2013{2}\u2009{3}",
]
AROUND = ["{}", "card {}", "{}.", "pan={};", "x{}x", "ref:{}/2026", "2026-03-01 {}", "7 {} 12", "«{}»"]


@pytest.mark.parametrize("grouping", GROUPED)
@pytest.mark.parametrize("around", AROUND)
def test_grouped_numbers_and_numbers_in_longer_text_are_found_and_redacted(
    grouping: str, around: str
) -> None:
    digits = "4" + "1" * 15
    text = around.format(grouping.format(*[digits[at : at + 4] for at in range(0, 16, 4)]))
    assert looks_like_card_number(text)
    assert may_hold_card_number(text.encode())
    assert "1111" not in redact(text)
    assert "[card number]" in redact(text)


def test_digits_of_another_script_are_digits() -> None:
    digits = "4" + "1" * 15
    for zero in (0xFF10, 0x0660, 0x0966):
        text = "".join(chr(zero + int(digit)) for digit in digits)
        assert looks_like_card_number(text)
        assert may_hold_card_number(text.encode())
        assert redact(text) == "[card number]"


def test_random_identifiers_are_not_taken_for_card_numbers() -> None:
    rng = random.Random(5)
    for _ in range(5_000):
        name = uuid.UUID(int=rng.getrandbits(128), version=4)
        assert not looks_like_card_number(f"txn_{name}") or name.hex.isdigit()
        assert not looks_like_card_number(name.hex) or name.hex.isdigit()


def test_a_card_number_beside_a_uuid_is_still_found() -> None:
    name = uuid.UUID(int=random.Random(1).getrandbits(128), version=4)
    assert looks_like_card_number(f"{name} {'4' + '1' * 15}")


@given(st.text(max_size=40), st.text(alphabet="0123456789 -", max_size=25))
def test_the_cheap_filter_never_misses_what_the_search_finds(before: str, digits: str) -> None:
    text = before + digits
    assert may_hold_card_number(text.encode()) or not looks_like_card_number(text)


def test_text_without_a_card_number_is_left_alone() -> None:
    for text in ("", "order 1234", "2026-03-01 12:00:00.250", "+49 30 1234567", "203.0.113.7"):
        assert not looks_like_card_number(text)
        assert redact(text) == text
