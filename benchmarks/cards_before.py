"""The detection of card numbers as it was: Luhn over any 13 to 19 digits, groups of digits joined.

Frozen, so that `benchmarks.cards` has something to compare the time of a request with.
"""

from __future__ import annotations

import re
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
_KINDS: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x78 for byte in range(256))
_SEPARATORS: Final = b" -"
_RUN: Final = b"0" * _FEWEST


def _luhn_valid(digits: str) -> bool:
    total = 0
    for place, character in enumerate(reversed(digits)):
        value = ord(character) - 48
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def looks_like_card_number(text: str) -> bool:
    """Whether any run of 13-19 digits in an ASCII `text`, blanks and dashes ignored, passes Luhn."""
    if len(text) < _FEWEST:
        return False
    for _ in _card_numbers(text):
        return any(True for _ in _card_numbers(_HEXADECIMAL.sub("x", text)))
    return False


def may_hold_card_number(raw: bytes) -> bool:
    """The cheap filter over undecoded JSON."""
    return _RUN in raw.translate(_KINDS, _SEPARATORS) or b"\\u" in raw or not raw.isascii()


def _card_numbers(text: str) -> Iterator[tuple[int, int]]:
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
                if len(digits) >= _FEWEST and _luhn_valid(digits):
                    yield spans[first][0], spans[last][1]
                    first = last
                    break
            first += 1
