"""Detection of card numbers (PANs), so that every edge can refuse them.

A PAN is 13 to 19 digits, possibly in groups with single blanks or dashes between them, whose
last digit is the Luhn check digit (ISO/IEC 7812-1, annex B). It may stand beside other groups
of digits, such as a date. Digits, blanks and dashes of any script count.
UUIDs and other long hexadecimal tokens are not searched: one in a few hundred would hold such
digits by chance.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

_GROUPS = re.compile(r"\d+(?:[ -]\d+)*", re.ASCII)
_GROUP = re.compile(r"\d+", re.ASCII)
_HEXADECIMAL = re.compile(
    r"(?<![0-9a-z])(?:[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    r"|(?=[0-9]*[a-f])[0-9a-f]{24,})(?![0-9a-z])",
    re.ASCII | re.IGNORECASE,
)
_FEWEST: Final = 13
_MOST: Final = 19
#: Every byte by kind: digits become 0, other bytes x; blanks and dashes are left out.
_KINDS: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x78 for byte in range(256))
_SEPARATORS: Final = b" -"
_RUN: Final = b"0" * _FEWEST


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
    if len(text) < _FEWEST:
        return False
    if not text.isascii():
        text = _in_ascii(text)
    for _ in _card_numbers(text):
        return any(True for _ in _card_numbers(_HEXADECIMAL.sub("x", text)))
    return False


def may_hold_card_number(raw: bytes) -> bool:
    """A cheap filter over undecoded JSON: False means that no field can hold a card number.

    True means only that the decoded fields must be looked at one by one. Escaped digits
    (``\\u0034``) cannot hide a number, nor can digits of another script: any escape and any
    byte beyond ASCII make the answer True.
    """
    return _RUN in raw.translate(_KINDS, _SEPARATORS) or b"\\u" in raw or not raw.isascii()


def redact(text: str) -> str:
    """`text` with every card number replaced by ``[card number]``, for logs and errors."""

    if not text.isascii():
        text = _in_ascii(text)
    for start, end in reversed(list(_card_numbers(text))):
        text = f"{text[:start]}[card number]{text[end:]}"
    return text


def _card_numbers(text: str) -> Iterator[tuple[int, int]]:
    """Where the card numbers in an ASCII text begin and end: whole groups of digits each."""
    for groups in _GROUPS.finditer(text):
        if groups.end() - groups.start() < _FEWEST:
            continue
        spans = [group.span() for group in _GROUP.finditer(text, *groups.span())]
        first = 0
        while first < len(spans):
            digits = ""
            for last in range(first, len(spans)):
                digits += text[slice(*spans[last])]
                if len(digits) > _MOST:
                    break
                if len(digits) >= _FEWEST and luhn_valid(digits):
                    yield spans[first][0], spans[last][1]
                    first = last
                    break
            first += 1


def _in_ascii(text: str) -> str:
    """Decimal digits, blanks and dashes of every script as their ASCII forms."""
    characters = []
    for character in text:
        if character.isdecimal():
            character = str(unicodedata.decimal(character))
        elif character.isspace():
            character = " "
        elif unicodedata.category(character) == "Pd":
            character = "-"
        characters.append(character)
    return "".join(characters)
