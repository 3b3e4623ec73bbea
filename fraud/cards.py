"""Detection of card numbers (PANs), so that every edge can refuse them.

A PAN is 13 to 19 digits, possibly grouped by single blanks or dashes, whose last digit is the
Luhn check digit (ISO/IEC 7812-1, annex B).
"""

from __future__ import annotations

import re

_DIGIT_RUN = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
_RAW_SUSPECT = re.compile(rb"\d(?:[ -]?\d){12}|\\u")


def luhn_valid(digits: str) -> bool:
    """Whether a string of decimal digits ends in its own Luhn check digit."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        value = ord(character) - 48
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def looks_like_card_number(text: str) -> bool:
    """Whether any run of 13-19 digits in `text`, blanks and dashes ignored, passes Luhn."""
    if len(text) < 13:
        return False
    for match in _DIGIT_RUN.finditer(text):
        if luhn_valid(match.group().replace(" ", "").replace("-", "")):
            return True
    return False


def may_hold_card_number(raw: bytes) -> bool:
    """A cheap filter over undecoded JSON: False means that no field can hold a card number.

    True means only that the decoded fields must be looked at one by one. Escaped digits
    (``\\u0034``) cannot hide a number: any escape makes the answer True.
    """
    return _RAW_SUSPECT.search(raw) is not None


def redact(text: str) -> str:
    """`text` with every card number replaced by ``[card number]``, for logs and errors."""

    def replace(match: re.Match[str]) -> str:
        digits = match.group().replace(" ", "").replace("-", "")
        return "[card number]" if luhn_valid(digits) else match.group()

    return _DIGIT_RUN.sub(replace, text)
