"""The contract's rules over whole columns: row by row what `fraud.contract.transaction.check` says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraud.contract.canonical import INVISIBLE, UNSEEN
from fraud.contract.cards import SUSPECT, looks_like_card_number
from fraud.contract.fields import CHANNELS, EXPECTED
from fraud.contract.issuers import FEWEST, LEAD, MOST, lengths_by_lead
from fraud.contract.money import MINOR_DIGITS
from fraud.contract.transaction import LARGEST_AMOUNT, searched_fields

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_EARLIEST_US: Final = 946_684_800_000_000  # 2000-01-01, as in the contract
_REQUIRED_TEXT: Final = ("transaction_id", "customer_id", "card_id", "merchant_id")
_OPTIONAL_TEXT: Final = ("terminal_id", "device_id", "ip", "merchant_category")
_TEXT: Final = (*_REQUIRED_TEXT, "currency", *_OPTIONAL_TEXT)
_LONGEST: Final = 64
_LENGTHS: Final = np.frombuffer(lengths_by_lead(), dtype=np.uint8)
_UNSEEN: Final = re.sub(r"\\u([0-9a-f]{4})", r"\\x{\1}", INVISIBLE).replace(r"\x9f", r"\x{9f}")
#: What is said of a card number, and of the way on.
CARD_NUMBER: Final = "looks like a card number; send a token instead (tokenize: true in a mapping makes one)"
_PLAIN: Final = rf"^\d{{{FEWEST},{MOST}}}$"


class Findings:
    """The first thing wrong with each of `rows` rows, and which of them are left out as the mapping says."""

    def __init__(self, rows: int) -> None:
        self._first = np.full(rows, -1, dtype=np.int32)
        self._reasons: list[tuple[str, str]] = []
        self._out = np.zeros(rows, dtype=bool)
        #: How many rows were left out for which reason.
        self.left_out: Counter[str] = Counter()

    def leave_out(self, rows: Mask, reason: str) -> None:
        """Leave `rows` out: nothing is wrong with them, and nothing more is said of them."""
        fresh = rows & ~self._out & (self._first < 0)
        if fresh.any():
            self._out |= fresh
            self.left_out[reason] += int(np.count_nonzero(fresh))

    def noted(self, read: tuple[pa.Array, list[tuple[Mask, str]]], field: str) -> pa.Array:
        """The values that were read of `field`; what could not be is noted."""
        values, problems = read
        for mask, reason in problems:
            self.add(mask, field, reason)
        return values

    def add(self, broken: Mask, field: str, reason: str) -> None:
        """Note `reason` against `field` for the rows of `broken` that had no finding yet."""
        fresh = broken & (self._first < 0) & ~self._out
        if fresh.any():
            self._first[fresh] = len(self._reasons)
            self._reasons.append((field, reason))

    @property
    def kept(self) -> Mask:
        """Which rows are taken."""
        return np.asarray((self._first < 0) & ~self._out)

    @property
    def broken(self) -> Mask:
        """Which rows have a finding."""
        return np.asarray(self._first >= 0)

    def at(self, row: int) -> tuple[str, str]:
        """Field and reason of a broken row."""
        return self._reasons[int(self._first[row])]

    def counts(self) -> dict[tuple[str, str], int]:
        """How many rows each field and reason broke."""
        number = np.bincount(self._first[self._first >= 0], minlength=len(self._reasons))
        return {reason: int(count) for reason, count in zip(self._reasons, number, strict=True)}


def find_card_numbers(table: pa.Table, findings: Findings, cardless: Collection[str] = ()) -> None:
    """Note every text field of `table` that holds a card number, but those of `cardless` and those that a
    setting declares. Needs no other check first."""
    for name in searched_fields():
        if name not in cardless:
            findings.add(card_number_mask(table.column(name)), name, CARD_NUMBER)


def check_columns(table: pa.Table, findings: Findings, cardless: Collection[str] = ()) -> None:
    """Hold TRANSACTION_SCHEMA-like columns to the contract; nulls stand for absent values.

    `event_timestamp` null stands for a time that could not be read, `amount_minor` null for an
    amount that could not.
    """
    for name in _TEXT:
        column = table.column(name)
        null = _mask(pc.is_null(column))
        length = pc.fill_null(pc.utf8_length(column), 1).to_numpy()
        broken = (length < 1) | (length > _LONGEST)
        if name in _REQUIRED_TEXT:
            findings.add(null, name, f"is missing; it should be {EXPECTED[name]}")
        findings.add(_mask(pc.fill_null(pc.match_substring_regex(column, _UNSEEN), False)), name, UNSEEN)
        if name != "currency":
            findings.add(broken, name, f"should be {EXPECTED[name]}")
    find_card_numbers(table, findings, cardless)
    _check_choice(table, findings, "currency", tuple(MINOR_DIGITS))
    _check_choice(table, findings, "channel", CHANNELS)
    time = table.column("event_timestamp")
    findings.add(_mask(pc.is_null(time)), "event_time", f"should be {EXPECTED['event_time']}")
    us = pc.fill_null(time.cast(pa.int64()), _EARLIEST_US).to_numpy()
    findings.add(us < _EARLIEST_US, "event_time", "is before 2000-01-01")
    amount = table.column("amount_minor")
    findings.add(_mask(pc.is_null(amount)), "amount", f"should be {EXPECTED['amount']}")
    minor = pc.fill_null(amount, 0).to_numpy()
    findings.add(minor < 0, "amount", f"should be {EXPECTED['amount']}")
    findings.add(
        minor > LARGEST_AMOUNT, "amount", f"is above the largest accepted, {LARGEST_AMOUNT} minor units"
    )
    country = table.column("country")
    wrong = pc.invert(pc.match_substring_regex(country, "^[A-Z]{2}$"))
    findings.add(_mask(pc.fill_null(wrong, False)), "country", f"should be {EXPECTED['country']}")
    _check_place(table, findings)


def card_number_mask(column: pa.ChunkedArray | pa.Array) -> Mask:
    """Which values of a text column hold a card number."""
    suspect = np.flatnonzero(_mask(pc.fill_null(pc.match_substring_regex(column, SUSPECT), False)))
    found = np.zeros(len(column), dtype=bool)
    if not suspect.size:
        return found
    values = column.take(pa.array(suspect))
    plain = _mask(pc.match_substring_regex(values, _PLAIN))
    found[suspect[plain]] = _plain_card_numbers(values.filter(pa.array(plain)))
    others = values.filter(pa.array(~plain)).to_pylist()
    found[suspect[~plain]] = [looks_like_card_number(value) for value in others]
    return found


def _plain_card_numbers(column: pa.ChunkedArray | pa.Array) -> Mask:
    """As `is_card_number`, for a column of 12 to 19 digits each: ids that are numbers are millions."""
    length = np.asarray(pc.utf8_length(column)).astype(np.int64)
    lead = np.asarray(pc.utf8_slice_codeunits(column, 0, LEAD).cast(pa.int64()))
    rest = np.asarray(column.cast(pa.uint64()))
    found: Mask = (_LENGTHS[lead] >> (length - FEWEST).astype(np.uint8) & 1).astype(bool)
    rest = rest[found]
    total = np.zeros(len(rest), dtype=np.int64)
    for place in range(MOST):
        rest, digit = rest // 10, (rest % 10).astype(np.int64)
        total += digit if place % 2 == 0 else 2 * digit - 9 * (digit > 4)
    found[found] = total % 10 == 0
    return found


def _check_choice(table: pa.Table, findings: Findings, name: str, choices: tuple[str, ...]) -> None:
    column = table.column(name)
    findings.add(_mask(pc.is_null(column)), name, f"is missing; it should be {EXPECTED[name]}")
    known = pc.is_in(column, value_set=pa.array(choices, pa.string()))
    findings.add(~_mask(known), name, f"should be {EXPECTED[name]}")


def _check_place(table: pa.Table, findings: Findings) -> None:
    absent = {}
    for name, most in (("latitude", 90.0), ("longitude", 180.0)):
        column = table.column(name)
        absent[name] = _mask(pc.is_null(column))
        degrees = pc.fill_null(column, 0.0).to_numpy()
        findings.add(~(np.abs(degrees) <= most), name, f"should be {EXPECTED[name]}")
    for name, other in (("latitude", "longitude"), ("longitude", "latitude")):
        alone = absent[name] & ~absent[other]
        findings.add(alone, name, "is absent while the other coordinate is given")


def _mask(values: pa.ChunkedArray | pa.Array) -> Mask:
    if isinstance(values, pa.ChunkedArray):
        return np.array(values.to_numpy(), dtype=bool)
    return np.array(values.to_numpy(zero_copy_only=False), dtype=bool)
