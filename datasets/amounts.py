"""Somebody's amounts as exact minor units: decimals, floats, minor units, commas, signs, roundings."""

from __future__ import annotations

import decimal
import re
from decimal import Decimal
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.columns import Ints, Problems, mask_of, matches, numbers, text, without_powers
from datasets.fields import FieldMapping
from fraud.contract.money import MINOR_DIGITS
from fraud.contract.transaction import LARGEST_AMOUNT

_TOO_LARGE: Final = LARGEST_AMOUNT + 1
#: An amount that may come from a binary float counts as exact this close to a whole minor unit.
_FLOAT_TOLERANCE: Final = 1e-6
#: Sign, whole part and twelve decimals; further decimals are dropped.
_NUMBER: Final = r"^\s*(?P<sign>[+-]?)(?P<whole>\d{1,15})(?:\.(?P<part>\d{1,12})\d{0,18})?\s*$"
#: A 32-bit float has 24 bits: beyond them whole numbers run together.
_FLOAT32_WHOLE: Final = 2.0**24
_FINER: Final = "has more decimals than the minor unit of its currency"
_UNREADABLE: Final = "should be a decimal number, such as 12.34"
_ROUNDINGS: Final = {
    "half_up": decimal.ROUND_HALF_UP, "half_even": decimal.ROUND_HALF_EVEN, "down": decimal.ROUND_DOWN,
}  # fmt: skip
_WIDE: Final = decimal.Context(prec=80)
#: What an unreadable amount looks like, and what the mapping could say of it.
_HINTS: Final = (
    (
        r"^\s*[+-]?\d{1,3}(,\d{3})+(\.\d*)?\s*$",
        "commas group its thousands: say thousands: ',' (or decimal: ',')",
    ),
    (r"^\s*[+-]?\d+,\d{1,2}\s*$", "it has a decimal comma: say decimal: ','"),
    (
        r"^\s*[+-]?\d{1,3}([ '\x{a0}\x{202f}]\d{3})+([.,]\d*)?\s*$",
        "blanks or apostrophes group its thousands: say thousands",
    ),
    (r"[$\x{20ac}\x{a3}\x{a5}\x{20b9}]|[A-Z]{3}", "a currency stands in it: say symbol"),
)  # fmt: skip
_MINUS_BEHIND: Final = r"^\s*([^-]*\d)-\s*$"
_BRACKETS: Final = r"^\s*\(([^()-]*\d[^()-]*)\)\s*$"


def amounts(column: pa.Array, digits: Ints, source: FieldMapping) -> tuple[pa.Array, Problems]:
    """Amounts as int64 minor units, null where unreadable or absent.

    `digits` is the number of decimals of each row's currency. With `unit: minor` the column
    counts minor units already. Binary floats, and text that may have been printed from one, are
    accepted only within 1e-6 of a whole minor unit; decimal columns only when exact, or rounded as
    the mapping says.
    """
    if source.unit == "minor":
        digits = np.zeros_like(digits)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if source.rounding != "refuse":
        column, problems = _rounded(column, digits, source)
        source = source.model_copy(update={"decimal": ".", "thousands": None, "symbol": None})
        found, more = _exact(column, digits, source)
        problems += more
    else:
        found, problems = _exact(column, digits, source)
    return (pc.abs(found) if source.negative == "absolute" else found), problems


def in_iso_digits(minor: pa.Array, currency: pa.Array, source: FieldMapping) -> tuple[pa.Array, Problems]:
    """A provider's minor units in ISO 4217's, where `minor_digits` says that they differ."""
    values = pc.fill_null(minor, 0).to_numpy(zero_copy_only=False).copy()
    finer = np.zeros(len(values), dtype=bool)
    for code, digits in source.minor_digits.items():
        rows = mask_of(pc.fill_null(pc.equal(currency, code), False))
        more = MINOR_DIGITS.get(code, digits) - digits
        if more >= 0:
            values[rows] *= 10**more
        else:
            finer |= rows & (values % 10**-more != 0)
            values[rows] //= 10**-more
    return pa.array(values, mask=mask_of(pc.is_null(minor))), [(finer, _FINER)]


def _exact(column: pa.Array, digits: Ints, source: FieldMapping) -> tuple[pa.Array, Problems]:
    kind = column.type
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        # The shortest decimal that is this number, as every program prints it, where it can tell cents apart.
        column = column.cast(pa.float32())
        values = column.to_numpy(zero_copy_only=False).astype(np.float64)
        coarse = np.abs(values) * 10.0**digits >= _FLOAT32_WHOLE
        strings = without_powers(pc.if_else(pa.array(coarse), None, column.cast(pa.string())))
        found, problems = _exact(strings, digits, source.model_copy(update={"decimal": "."}))
        return found, [*problems, (coarse, "is a 32-bit float too large to hold its minor units")]
    if pa.types.is_floating(kind):
        return _float_amounts(column, digits)
    if pa.types.is_decimal(kind):
        return _decimal_amounts(column, digits)
    if pa.types.is_integer(kind):
        return _text_amounts(column.cast(pa.string()), column.cast(pa.string()), digits)
    written = text(column)
    return _text_amounts(_plain(written, source), written, digits)


def _text_amounts(strings: pa.Array, written: pa.Array, digits: Ints) -> tuple[pa.Array, Problems]:
    whole, part, negative, readable = numbers(strings, _NUMBER)
    step = 10 ** (12 - digits)
    rest = part % step
    # Text may have been printed from a binary float: 304.09999999999997 means 304.10.
    up = step - rest <= step * _FLOAT_TOLERANCE
    minor = whole * 10**digits + part // step + up
    minor = np.where(whole > LARGEST_AMOUNT, _TOO_LARGE, np.minimum(minor, _TOO_LARGE))
    minor = np.where(negative, -minor, minor)
    finer = readable & ~up & (rest > step * _FLOAT_TOLERANCE)
    unreadable = ~readable & mask_of(pc.is_valid(written))
    problems: Problems = []
    if unreadable.any():
        problems = [
            (unreadable & matches(written, pattern), f"{_UNREADABLE}; {hint}") for pattern, hint in _HINTS
        ]
    return pa.array(minor, mask=~readable), [*problems, (unreadable, _UNREADABLE), (finer, _FINER)]


def _plain(strings: pa.Array, source: FieldMapping) -> pa.Array:
    """Amounts as the mapping says they are written, as plain decimals with a point.

    What does not fit (a point that groups no three digits) stays, marked so that nothing reads it.
    """
    if source.symbol is not None:
        mark = re.escape(source.symbol)
        strings = pc.replace_substring_regex(strings, rf"^\s*([+-]?)\s*{mark}\s*", r"\1")
        strings = pc.replace_substring_regex(strings, rf"\s*{mark}\s*$", "")
    strings = pc.replace_substring_regex(strings, _MINUS_BEHIND, r"-\1")
    strings = pc.replace_substring_regex(strings, _BRACKETS, r"-\1")
    strings = pc.replace_substring(strings, "\u2212", "-")
    groups, point = source.groups, re.escape(source.decimal)
    if groups is not None:
        if groups == " ":
            strings = pc.replace_substring_regex(strings, r"(\d)[\x{a0}\x{202f}](\d)", r"\1 \2")
        group = re.escape(groups)
        sound = pc.or_(
            pc.match_substring_regex(strings, rf"^\s*[+-]?\d{{1,3}}(?:{group}\d{{3}})+(?:{point}\d*)?\s*$"),
            pc.match_substring_regex(strings, rf"^\s*[+-]?\d*(?:{point}\d*)?\s*$"),
        )
        bare = pc.replace_substring(strings, groups, "")
        strings = pc.if_else(sound, bare, pc.binary_join_element_wise("?", strings, ""))
    if source.decimal == ",":
        strings = pc.replace_substring(strings, ",", ".")
    return without_powers(strings)


def _rounded(column: pa.Array, digits: Ints, source: FieldMapping) -> tuple[pa.Array, Problems]:
    """Amounts as text, rounded to their minor unit as the mapping says, each different one once.

    A binary float is rounded as it is printed: 2.675 is two and 675 thousandths.
    """
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        strings = without_powers(column.cast(pa.string()))
        strings = pc.if_else(pc.is_in(strings, pa.array(["nan"])), None, strings)
    else:
        strings = _plain(text(column), source)
    rounding = _ROUNDINGS[source.rounding]
    made: dict[tuple[str | None, int], str | None] = {}
    result: list[str | None] = []
    for value, places in zip(strings.to_pylist(), digits.tolist(), strict=True):
        key = (value, places)
        if key not in made:
            made[key] = _round(value, places, rounding)
        result.append(made[key])
    broken = mask_of(pc.is_valid(strings)) & np.array([value is None for value in result])
    return pa.array(result, pa.string()), [(broken, _UNREADABLE)]


def _round(value: str | None, places: int, rounding: str) -> str | None:
    if value is None:
        return None
    try:
        number = Decimal(value.strip())
        return f"{number.quantize(Decimal(1).scaleb(-places), rounding, _WIDE):f}"
    except decimal.InvalidOperation:
        return None


def _float_amounts(column: pa.Array, digits: Ints) -> tuple[pa.Array, Problems]:
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)  # null becomes NaN
    absent = np.isnan(values)
    scaled = np.where(np.isfinite(values), values, 0.0) * 10.0**digits
    nearest = np.round(scaled)
    inexact = ~(np.abs(scaled - nearest) <= _FLOAT_TOLERANCE)
    minor = np.clip(nearest, -_TOO_LARGE, _TOO_LARGE).astype(np.int64)
    reason = (
        f"is a float further than {_FLOAT_TOLERANCE:g} from a whole minor unit; say rounding, or give text"
    )
    problems = [(np.isinf(values), "is not a finite number"), (inexact & ~absent, reason)]
    return pa.array(minor, mask=absent | np.isinf(values)), problems


def _decimal_amounts(column: pa.Array, digits: Ints) -> tuple[pa.Array, Problems]:
    wide = column.cast(pa.decimal256(76, max(column.type.scale, 3)))
    limit, zero = (pa.scalar(Decimal(number), wide.type) for number in (_TOO_LARGE, 0))
    beyond = pc.greater_equal(pc.abs(wide), limit)
    bounded = pc.if_else(beyond, zero, wide)
    thousandths = bounded.cast(pa.decimal256(76, 3), safe=False)
    finer = mask_of(pc.fill_null(pc.not_equal(thousandths.cast(wide.type), bounded), False))
    thousand = pa.scalar(Decimal(1000), pa.decimal128(4, 0))
    scaled = pc.multiply(thousandths.cast(pa.decimal128(20, 3)), thousand).cast(pa.int64())
    exact = pc.fill_null(scaled, 0).to_numpy(zero_copy_only=False)
    step = 10 ** (3 - digits)
    finer |= exact % step != 0
    sign = np.where(mask_of(pc.fill_null(pc.less(wide, zero), False)), -1, 1)
    minor = np.where(mask_of(pc.fill_null(beyond, False)), sign * _TOO_LARGE, exact // step)
    return pa.array(minor, mask=mask_of(pc.is_null(column))), [(finer, _FINER)]
