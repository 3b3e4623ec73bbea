"""One form of what can be spelt in many ways: text, addresses, keys and fractions of a second.

A retry is often written again by another JSON library: 12.3 for 12.30, another offset, a composed
for a decomposed letter. What means the same has the same form here, so that the digest of a
request, the event log, the lake and labels agree. The importer applies the same rules.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from fraud.contract.cards import redact
from fraud.contract.refusal import ContractError

LONGEST_TEXT: Final = 64
#: Characters that nobody sees: control characters (C0, DEL, C1), separators of lines and
#: paragraphs, the zero-width blank and mark, and what turns the direction of writing about.
INVISIBLE: Final = r"[\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
UNSEEN: Final = "holds a control character or another one that cannot be seen"

_INVISIBLE: Final = re.compile(INVISIBLE)
_OCTETS: Final = frozenset(map(str, range(256)))
#: What is meant as an address: digits of addresses with points or colons, or a list of them.
_ADDRESS: Final = re.compile(r"(?=.*[.:,])[0-9A-Fa-f:.\[\]%/, ]+")
_WITH_PORT: Final = re.compile(r"\[(?P<six>[^\]]+)\](?::\d{1,5})?|(?P<four>\d+\.\d+\.\d+\.\d+):\d{1,5}")
#: A decimal as XML Schema, SQL and JSON have it, in ASCII; signs and what is no number are the contract's.
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?[A-Za-z]+")
_ZONE: Final = re.compile(r"%.*$")
#: A time with more digits than microseconds: its first six, and those to be cut off.
_FINER: Final = re.compile(rb'"event_time"\s*:\s*"[^"]{10,20}\.\d{6}(\d+)')


def clean_text(field: str, value: str) -> str:
    """`value` composed (Unicode NFC) and without blanks around it; raise `ContractError` for `field`."""
    if _INVISIBLE.search(value) is not None:
        raise ContractError(field, UNSEEN)
    value = unicodedata.normalize("NFC", value).strip()
    # An id may stand behind the name of its client's id space; the door holds the client's own to less.
    if len(value) > (2 * LONGEST_TEXT if field == "transaction_id" else LONGEST_TEXT):
        raise ContractError(field, f"should be a string of 1 to {LONGEST_TEXT} characters")
    return value


def is_plain_address(text: str) -> bool:
    """Whether `text` is an IPv4 address as it should be."""
    parts = text.split(".")
    return len(parts) == 4 and _OCTETS.issuperset(parts)


@lru_cache(maxsize=16_384)
def normal_address(text: str) -> str | None:
    """An IP address as RFC 5952 writes it, without port and zone; None for one that is none.

    IPv4 in IPv6 (``::ffff:203.0.113.7``) is the IPv4 address. A text that is not meant as an address,
    such as a token of one, stays as it is.
    """
    found = _WITH_PORT.fullmatch(text)
    bare = _ZONE.sub("", (found["six"] or found["four"]) if found else text)
    try:
        address = ip_address(bare)
    except ValueError:
        return None if _ADDRESS.fullmatch(text) else text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def may_be_finer(outline: bytes) -> bool:
    """Whether the event time in the outline of a body (`fraud.contract.cards.outline`) may have more
    digits than microseconds."""
    start = outline.find(b'"event_time":"')
    # 20260219T12:00:00.1234567Z: the seventh digit; or a blank, which is gone, in place of the T.
    return (
        start < 0 or len(outline) < start + 39 or outline[start + 38] == 0x30 or outline[start + 22] == 0x30
    )


def cut_fraction(raw: bytes) -> bytes:
    """`raw` with the event time cut off after its microseconds, which parsers would round up."""
    found = _FINER.search(raw)
    return raw if found is None else raw[: found.start(1)] + raw[found.end(1) :]


def is_plain_amount(outline: bytes) -> bool:
    """Whether the amount in the outline of a body (`fraud.contract.cards.outline`) is digits and a point, or
    no text. Python's decimals would take underscores and the digits of any script besides."""
    at = outline.find(b'"amount":"')
    if at < 0:
        return True
    at += 10
    return not outline[at : outline.find(b'"', at)].strip(b"0.")


def second_look(raw: bytes) -> None:
    """Raise `ContractError` for a JSON object that names a field twice, or whose amount is no decimal as
    others read one."""
    amount = refuse_repeated_keys(raw).get("amount")
    if isinstance(amount, str) and _DECIMAL.fullmatch(amount.strip()) is None:
        raise ContractError(
            "amount", 'should be a decimal of at least 0, as a string or a number, such as "12.34"'
        )


def refuse_repeated_keys(raw: bytes) -> dict[str, Any]:
    """The JSON object, numbers as text; raise `ContractError` for one that names a field twice, as readers
    differ on which counts."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen:
                raise ContractError(redact(name)[:LONGEST_TEXT], "is given twice")
            seen[name] = value
        return seen

    # Numbers stay text: Python refuses to convert long ones, which are the contract's to judge.
    found: dict[str, Any] = json.loads(raw, object_pairs_hook=once, parse_int=str, parse_float=str)
    return found
