"""How a column seems to be written: times, amounts, currencies, channels, from a sample of its values."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from fraud.contract.fields import CHANNELS
from fraud.contract.money import CURRENCIES

_FORMATS: Final = (
    "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %I:%M:%S %p",
    "%d-%b-%Y %H:%M:%S", "%d-%b-%y %I.%M.%S.%f %p", "%b %d, %Y %H:%M:%S", "%y%m%d%H%M%S",
    "%a, %d %b %Y %H:%M:%S %z", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y",
)  # fmt: skip
_ISO: Final = r"\d{4}[-/]\d\d[-/]\d\d([Tt ].*)?|\d{8}[Tt ]?\d{6}.*"
_OFFSET: Final = r".*([Zz]|UTC|GMT|[T ].*[+-]\d\d(:?\d\d)?)(\[.*\])?"
#: Digits of whole numbers since 1970, by unit, of times from 2001 to 2286.
_EPOCHS: Final = {10: "s", 13: "ms", 16: "us", 19: "ns"}
_WORDS: Final = {
    "ecom": r"e-?com|online|web|internet|cnp|app|mobile|browser|click",
    "atm": r"atm|cash.?out|withdraw",
    "pos": r"pos|chip|swip|contactless|present|terminal|in.?store|nfc|magstripe|card",
    "moto": r"moto|phone|mail",
    "transfer": r"transfer|wire|ach|cheque|check|debit|credit|payment|sepa",
}
_MOST_WORDS: Final = 30
_SHARE: Final = 0.9


class Guess(NamedTuple):
    """What a mapping could say of a field, and why."""

    content: Any
    remark: str = ""


def guess_event_time(column: str | None, values: list[str]) -> Guess:
    """How the times of `column` are written."""
    if column is None or not values:
        return Guess({"column": column or "EDIT", "timezone": "UTC"}, "EDIT: no column looks like a time")
    if _most(values, r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?"):
        return _guess_number(column, values)
    if _most(values, _ISO):
        if _most(values, _OFFSET):
            return Guess(column)
        return Guess(
            {"column": column, "timezone": "UTC"}, "EDIT: the times carry no offset; whose are they?"
        )
    fitting = [form for form in _FORMATS if all(_parses(value, form) for value in values[:2000])]
    if fitting:
        others = f"; {fitting[1]} would fit, too" if len(fitting) > 1 else ""
        return Guess({"column": column, "format": fitting[0], "timezone": "UTC"}, f"EDIT: timezone{others}")
    return Guess(
        {"column": column, "format": "EDIT", "timezone": "UTC"}, "EDIT: the format is none that is known here"
    )


def _guess_number(column: str, values: list[str]) -> Guess:
    whole = sorted(len(str(int(abs(float(value))))) for value in values)
    digits = whole[len(whole) // 2]
    if digits in _EPOCHS:
        return Guess({"column": column, "epoch": _EPOCHS[digits]}, "numbers since 1970")
    if _most(values, r"\d{14}"):
        return Guess(
            {"column": column, "timezone": "UTC"}, "EDIT: the times carry no offset; whose are they?"
        )
    numbers = [float(value) for value in values]
    if all(30_000 <= number < 60_000 for number in numbers) and any(number % 1 for number in numbers):
        return Guess({"column": column, "epoch": "sheet", "timezone": "UTC"}, "day numbers of a spreadsheet")
    unit = "s" if max(numbers) > 20_000 else "h"
    if "day" in column.casefold():
        unit = "d"
    content = {"column": column, "epoch": unit, "origin": "2020-01-01T00:00:00Z"}
    return Guess(content, "EDIT: relative times; in which unit (s, min, h, d), since when?")


def guess_amount(column: str | None, values: list[str]) -> Guess:
    """How the amounts of `column` are written."""
    if column is None:
        return Guess("EDIT", "EDIT: no column looks like an amount")
    content: dict[str, Any] = {"column": column}
    remarks = []
    marks = {mark for value in values for mark in re.findall(r"[$€£¥₹]", value)}
    if len(marks) == 1:
        content["symbol"] = marks.pop()
        values = [value.replace(content["symbol"], "").strip() for value in values]
    if any(re.fullmatch(r"-?\d{1,3}(\.\d{3})*,\d+|-?\d+,\d{1,2}", value) for value in values) and not any(
        re.search(r"\.\d{1,2}$", value) for value in values
    ):
        content["decimal"] = ","
        remarks.append("a decimal comma")
    elif any(re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", value) for value in values):
        content["thousands"] = ","
        remarks.append("commas group thousands")
    if any(value.lstrip().startswith(("-", "(")) or value.rstrip().endswith("-") for value in values):
        content["negative"] = "leave_out"
        remarks.append(
            "EDIT: negative amounts are left out as refunds; absolute, where the sign says who pays"
        )
    if values and all(re.fullmatch(r"-?\d+", value) for value in values):
        remarks.append("EDIT: whole numbers only: unit: minor, if they are cents")
    return Guess(content if len(content) > 1 else column, "; ".join(remarks))


def guess_currency(column: str | None, values: list[str]) -> Guess:
    """The column of currencies, or one for all."""
    if column is None:
        return Guess({"constant": "EUR"}, "EDIT: no column looks like a currency")
    strange = sorted(
        {value for value in values if value not in CURRENCIES and not re.fullmatch(r"\d{2,3}", value)}
    )
    if strange:
        words = dict.fromkeys(strange[:_MOST_WORDS], "EUR")
        return Guess(
            {"column": column, "values": words}, "EDIT: codes of ISO 4217 for the words of the column"
        )
    return Guess(column)


def guess_channel(column: str | None, values: list[str]) -> Guess:
    """The column of channels with its words in the contract's, or one for all."""
    distinct = sorted(set(values))
    if column is None or not distinct or len(distinct) > _MOST_WORDS:
        return Guess({"constant": "ecom"}, f"EDIT: one of {', '.join(CHANNELS)}, or a column with values")
    if set(distinct) <= set(CHANNELS):
        return Guess(column)
    words = {
        word: next((channel for channel, like in _WORDS.items() if re.search(like, word.casefold())), "ecom")
        for word in distinct
    }
    return Guess({"column": column, "values": words}, "EDIT: which channel is each?")


def _most(values: list[str], pattern: str) -> bool:
    return sum(re.fullmatch(pattern, value.strip()) is not None for value in values) >= _SHARE * len(values)


def _parses(value: str, form: str) -> bool:
    try:
        when = datetime.strptime(value.strip(), form)
    except ValueError:
        return False
    return 2000 <= when.year <= datetime.now(UTC).year + 1
