"""Detection of card numbers (PANs), so that every edge can refuse them.

A card number begins like an issuer's and is as long as that issuer's (`fraud.contract.issuers`),
ends in its Luhn check digit (ISO/IEC 7812-1, annex B), and stands in one piece or in the groups
that cards are printed in, with blanks or dashes between them. Digits, blanks and dashes of any
script count. It may stand beside other digits, such as a date; what is joined by dashes in other
groups is an id.
UUIDs and other long hexadecimal tokens are not searched: one in a few thousand would hold such
digits by chance. (A magnetic stripe's data in hexadecimal have one or two letters, D and F; a
token of at least 24 characters has three and more.)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

from fraud.contract.issuers import FEWEST, GROUPINGS, LEAD, MOST, lengths_by_lead

_GROUPS: Final = re.compile(rb"[0-9]+(?:[\s\-]{1,3}[0-9]+)*")
_GROUP: Final = re.compile(rb"[0-9]+")
_HEXADECIMAL: Final = re.compile(
    rb"(?<![0-9a-z])(?:[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    rb"|(?=(?:[0-9]*[a-f]){3})[0-9a-f]{24,})(?![0-9a-z])",
    re.IGNORECASE,
)
#: A pattern for other engines (RE2, Java) that finds at least every text with a card number in it.
SUSPECT: Final = rf"\p{{Nd}}(?:[\s\p{{Z}}\p{{Pd}}]{{0,3}}\p{{Nd}}){{{FEWEST - 1}}}"
_BLANKS: Final = b" -\t\n\v\f\r"
#: Every byte by kind: digits become 0, blanks and dashes -, all others x.
_SHAPE: Final = bytes(
    0x30 if 0x30 <= byte <= 0x39 else 0x2D if byte in _BLANKS else 0x78 for byte in range(256)
)
#: As it is, but digits become 0; an escape, DEL and what is not ASCII become a byte beyond ASCII.
_OUTLINE: Final = bytes(
    0x30 if 0x30 <= byte <= 0x39 else 0xFF if byte >= 0x7F or byte == 0x5C else byte for byte in range(256)
)
_RUN: Final = b"0" * FEWEST
_ALONE: Final = re.compile(b"0{%d,}" % FEWEST)
#: Shapes that the printed groupings begin with. All begin with zeros for which `re` can look quickly.
_PRINTED: Final = re.compile(
    rb"0000(?:(?<!00000)-{1,3}(?:0000(?:-{1,3}|0000)0000|000-{1,3}000-{1,3}000|00000-{1,3}000000|000000-{1,3}0000)"
    rb"|00(?<!0000000)-{1,3}0000000000000)"
)
#: Groupings by the digits of their first group.
_BY_FIRST: Final = {
    first: tuple(grouping for grouping in GROUPINGS if grouping[0] == first)
    for first in {grouping[0] for grouping in GROUPINGS}
}
_LENGTHS: Final = lengths_by_lead()
#: What a digit adds to Luhn's sum, by its ASCII code: in an odd place, and doubled in an even one.
_PLAIN: Final = bytes(max(0, code - 48) % 10 for code in range(256))
_DOUBLED: Final = bytes(sum(divmod(2 * (max(0, code - 48) % 10), 10)) for code in range(256))


def luhn_valid(digits: str | bytes) -> bool:
    """Whether decimal digits end in their own Luhn check digit."""
    codes = digits.encode() if isinstance(digits, str) else digits
    return (sum(codes[-1::-2].translate(_PLAIN)) + sum(codes[-2::-2].translate(_DOUBLED))) % 10 == 0


def is_card_number(digits: str | bytes) -> bool:
    """Whether ASCII digits begin, are as many and end like a card's number."""
    place = len(digits) - FEWEST
    return (
        0 <= place <= MOST - FEWEST and _LENGTHS[int(digits[:LEAD])] >> place & 1 > 0 and luhn_valid(digits)
    )


def looks_like_card_number(text: str) -> bool:
    """Whether `text` holds a card number, in one piece or as it is printed."""
    if len(text) < FEWEST:
        return False
    return _any((text if text.isascii() else in_ascii(text)).encode("ascii", "replace"))


def outline(raw: bytes) -> bytes:
    """`raw` at a glance: every digit is a 0, blanks and dashes are gone, and it is ASCII unless there is
    an escape, a DEL or a byte beyond ASCII in it."""
    return raw.translate(_OUTLINE, _BLANKS)


def may_hold_card_number(raw: bytes, seen: bytes | None = None) -> bool:
    """A cheap filter over undecoded JSON: False means that no field holds a card number.

    True means only that the decoded fields must be looked at one by one. Escaped digits
    (``\\u0034``) cannot hide a number, nor can digits of another script: any escape and any
    byte beyond ASCII make the answer True. `seen` is the `outline` of `raw`, where that is known.
    """
    if seen is None:
        seen = outline(raw)
    return not seen.isascii() or (_RUN in seen and _any(raw))


def redact(text: str) -> str:
    """`text` with every card number replaced by ``[card number]``, for logs and errors."""
    return with_card_numbers(text, lambda number: "[card number]")


def with_card_numbers(text: str, written: Callable[[str], str]) -> str:
    """`text` with every card number as `written` has it, in time that grows with the text alone."""
    parts: list[str] = []
    until = 0
    for start, end in card_numbers(text):
        parts += text[until:start], written(text[start:end])
        until = end
    return "".join((*parts, text[until:]))


def card_numbers(text: str) -> list[tuple[int, int]]:
    """Where the card numbers in a text begin and end: whole groups of digits each."""
    if len(text) < FEWEST:
        return []
    raw = (text if text.isascii() else in_ascii(text)).encode("ascii", "replace")
    return list(_search(_HEXADECIMAL.sub(_hidden, raw))) if _any(raw) else []


def in_ascii(text: str) -> str:
    """Decimal digits, blanks and dashes of every script as their ASCII forms, place by place."""
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


def _any(raw: bytes) -> bool:
    for _ in _search(raw):
        return any(True for _ in _search(_HEXADECIMAL.sub(_hidden, raw)))
    return False


def _hidden(match: re.Match[bytes]) -> bytes:
    return b"x" * len(match.group())


def _search(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where card numbers begin and end, hexadecimal tokens included."""
    if _RUN not in raw.translate(_SHAPE, _BLANKS):
        return
    shape = raw.translate(_SHAPE)
    if (b"0000-000" in shape or b"--" in shape) and _PRINTED.search(shape) is not None:
        yield from _search_groups(raw)
    elif _RUN in shape:
        for alone in _ALONE.finditer(shape):
            start, end = alone.span()
            if is_card_number(raw[start:end]):
                yield start, end


def _search_groups(raw: bytes) -> Iterator[tuple[int, int]]:
    """As `_search`, group by group."""
    for groups in _GROUPS.finditer(raw):
        if groups.end() - groups.start() < FEWEST:
            continue
        spans = [group.span() for group in _GROUP.finditer(raw, *groups.span())]
        sizes = tuple(end - start for start, end in spans)
        first = 0
        while first < len(spans):
            number = _groups_of_a_card(raw, spans, sizes, first)
            if number:
                yield spans[first][0], spans[first + number - 1][1]
            first += max(number, 1)


def _groups_of_a_card(raw: bytes, spans: list[tuple[int, int]], sizes: tuple[int, ...], first: int) -> int:
    """How many groups from `first` on are a card number, at most; 0 if none."""
    best = 1 if is_card_number(raw[slice(*spans[first])]) else 0
    for grouping in _BY_FIRST.get(sizes[first], ()):
        number = len(grouping)
        if number > best and sizes[first : first + number] == grouping:
            digits = b"".join(raw[slice(*span)] for span in spans[first : first + number])
            best = number if is_card_number(digits) else best
    return best
