"""Somebody's columns as the contract's types: text, exact amounts, UTC times.

Every function works on whole Arrow arrays, and says row by row what it could not read instead of
raising; MappingError is for a column that cannot be read at all.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.mapping import FieldMapping, MappingError
from fraud.contract.transaction import LARGEST_AMOUNT
from stores.lake import TIMESTAMP, microseconds

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_TOO_LARGE: Final = LARGEST_AMOUNT + 1
#: An amount that may come from a binary float counts as exact this close to a whole minor unit.
_FLOAT_TOLERANCE: Final = 1e-6
#: Sign, whole part and twelve decimals; further decimals are dropped.
_NUMBER: Final = r"^\s*(?P<sign>[+-]?)(?P<whole>\d{1,15})(?:\.(?P<part>\d{1,12})\d{0,18})?\s*$"
_EPOCH: Final = r"^\s*(?P<sign>-?)(?P<whole>[0-8]\d{18}|\d{1,18})(?:\.(?P<part>\d{1,12}))?\s*$"
_ISO: Final = (
    r"^\s*(?P<date>\d{4}-[01]\d-[0-3]\d)(?:[T ](?P<time>(?:[01]\d|2[0-3]):[0-5]\d)(?P<second>:[0-5]\d)?"
    r"(?P<part>\.\d{1,9})?\s?(?P<offset>Z|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?)?\s*$"
)
_FINER: Final = "has more decimals than the minor unit of its currency"
_UNIT_US: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}


#: Which rows could not be read, and why.
Problems = list[tuple[Mask, str]]


def text(column: pa.Array) -> pa.Array:
    """`column` as strings; empty and NaN become null, and 7.0 reads as 7 whatever the type."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return text(column.dictionary_decode())
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, None).cast(pa.float64())
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 1e18))
        integer = pc.if_else(whole, column, 0.0).cast(pa.int64()).cast(pa.string())
        return pc.if_else(whole, integer, column.cast(pa.string()))
    try:
        strings = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise MappingError(f"a column of type {kind} cannot be read as text") from None
    return pc.if_else(pc.equal(strings, ""), None, strings)


def field_text(batch: pa.RecordBatch, source: FieldMapping) -> pa.Array:
    """The field that `source` describes, as strings."""
    rows = batch.num_rows
    if source.constant is not None:
        return pa.array([source.constant]).take(pa.array(np.zeros(rows, dtype=np.int64)))
    if source.template is not None:
        parts: list[Any] = []
        for literal, column in source.pieces():
            parts.append(pa.scalar(literal))
            if column is not None:
                parts.append(text(batch.column(column)))
        joined = pc.binary_join_element_wise(*parts, pa.scalar(""))
        values = joined if isinstance(joined, pa.Array) else pa.array([joined.as_py()] * rows, pa.string())
    else:
        values = text(batch.column(source.column))
    if source.values is not None:
        place = pc.index_in(values, value_set=pa.array(list(source.values), pa.string()))
        replaced = pa.array(list(source.values.values()), pa.string()).take(place)
        # What is not listed stays as it is, to be refused by name, unless there is a default.
        values = replaced if source.default is not None else pc.coalesce(replaced, values)
    return values if source.default is None else pc.fill_null(values, source.default)


def degrees(column: pa.Array) -> tuple[pa.Array, Problems]:
    """A latitude or longitude as float64; NaN and empty are absent."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = column.cast(pa.float64())
        return pc.if_else(pc.is_nan(values), None, values), []
    strings = text(column)
    readable = pc.match_substring_regex(strings, r"^\s*[+-]?\d{1,3}(\.\d{1,15})?\s*$")
    values = pc.utf8_trim_whitespace(pc.if_else(readable, strings, None)).cast(pa.float64())
    broken = _mask(pc.fill_null(pc.invert(readable), False))
    return values, [(broken, "should be decimal degrees")]


def amounts(column: pa.Array, digits: Ints, source: FieldMapping) -> tuple[pa.Array, Problems]:
    """Amounts as int64 minor units, null where unreadable or absent.

    `digits` is the number of decimals of each row's currency. With `unit: minor` the column
    counts minor units already. Binary floats, and text that may have been printed from one, are
    accepted only within 1e-6 of a whole minor unit; decimal columns only when exact.
    """
    if source.unit == "minor":
        digits = np.zeros_like(digits)
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), column.type.value_type
    if pa.types.is_floating(kind):
        return _float_amounts(column, digits)
    if pa.types.is_decimal(kind):
        return _decimal_amounts(column, digits)
    strings = text(column)
    if source.decimal == ",":
        strings = pc.replace_substring(pc.replace_substring(strings, ".", ""), ",", ".")
    whole, part, negative, readable = _numbers(strings, _NUMBER)
    step = 10 ** (12 - digits)
    rest = part % step
    # Text may have been printed from a binary float: 304.09999999999997 means 304.10.
    up = step - rest <= step * _FLOAT_TOLERANCE
    minor = whole * 10**digits + part // step + up
    minor = np.where(whole > LARGEST_AMOUNT, _TOO_LARGE, np.minimum(minor, _TOO_LARGE))
    minor = np.where(negative, -minor, minor)
    finer = readable & ~up & (rest > step * _FLOAT_TOLERANCE)
    unreadable = ~readable & _mask(pc.is_valid(strings))
    problems = [(unreadable, "should be a decimal number, such as 12.34"), (finer, _FINER)]
    return pa.array(minor, mask=~readable), problems


def times(column: pa.Array, source: FieldMapping) -> tuple[pa.Array, Problems]:
    """Times as UTC microseconds cut to whole milliseconds, null where unreadable or absent."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), column.type.value_type
    if pa.types.is_date(kind):
        column, kind = column.cast(pa.timestamp("us")), pa.timestamp("us")
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            return _whole_ms(column.cast(TIMESTAMP, safe=False)), []
        if source.timezone is None:
            raise MappingError("the times carry no offset: say timezone in the mapping, such as UTC")
        return _zoned(column.cast(pa.timestamp("us"), safe=False), source.timezone)
    strings = text(column)
    if source.epoch is not None:
        return _epoch_times(strings, source.epoch)
    if source.format is not None:
        return _formatted(strings, source.format, source.timezone)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise MappingError("the times are plain numbers: say epoch in the mapping: s, ms, us or ns")
    return _iso_times(strings, source.timezone)


def _float_amounts(column: pa.Array, digits: Ints) -> tuple[pa.Array, Problems]:
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)  # null becomes NaN
    absent = np.isnan(values)
    scaled = np.where(np.isfinite(values), values, 0.0) * 10.0**digits
    nearest = np.round(scaled)
    inexact = ~(np.abs(scaled - nearest) <= _FLOAT_TOLERANCE)
    minor = np.clip(nearest, -_TOO_LARGE, _TOO_LARGE).astype(np.int64)
    reason = f"is a float further than {_FLOAT_TOLERANCE:g} from a whole minor unit; give a decimal"
    problems = [(np.isinf(values), "is not a finite number"), (inexact & ~absent, reason)]
    return pa.array(minor, mask=absent | np.isinf(values)), problems


def _decimal_amounts(column: pa.Array, digits: Ints) -> tuple[pa.Array, Problems]:
    wide = column.cast(pa.decimal256(76, max(column.type.scale, 3)))
    limit, zero = (pa.scalar(Decimal(number), wide.type) for number in (_TOO_LARGE, 0))
    beyond = pc.greater_equal(pc.abs(wide), limit)
    bounded = pc.if_else(beyond, zero, wide)
    thousandths = bounded.cast(pa.decimal256(76, 3), safe=False)
    finer = _mask(pc.fill_null(pc.not_equal(thousandths.cast(wide.type), bounded), False))
    thousand = pa.scalar(Decimal(1000), pa.decimal128(4, 0))
    scaled = pc.multiply(thousandths.cast(pa.decimal128(20, 3)), thousand).cast(pa.int64())
    exact = pc.fill_null(scaled, 0).to_numpy(zero_copy_only=False)
    step = 10 ** (3 - digits)
    finer |= exact % step != 0
    sign = np.where(_mask(pc.fill_null(pc.less(wide, zero), False)), -1, 1)
    minor = np.where(_mask(pc.fill_null(beyond, False)), sign * _TOO_LARGE, exact // step)
    return pa.array(minor, mask=_mask(pc.is_null(column))), [(finer, _FINER)]


def _iso_times(strings: pa.Array, zone: str | None) -> tuple[pa.Array, Problems]:
    found = pc.extract_regex(strings, pattern=_ISO)
    date, clock, second, part, offset = found.flatten()
    clock = pc.if_else(pc.equal(clock, ""), "00:00", clock)
    second = pc.if_else(pc.equal(second, ""), ":00", second)
    joined = pc.binary_join_element_wise(date, pc.binary_join_element_wise(clock, second, ""), " ")
    naive = pc.strptime(joined, format="%Y-%m-%d %H:%M:%S", unit="us", error_is_null=True)
    # strptime carries 30 February over into March: the day must come out as it went in.
    day = pc.equal(pc.day(naive), pc.utf8_slice_codeunits(date, 8, 10).cast(pa.int64()))
    naive = pc.if_else(pc.fill_null(day, False), naive, None)
    digits = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.utf8_slice_codeunits(part, 1), 6, "0"), 0, 6)
    fraction = pc.fill_null(pc.if_else(pc.equal(part, ""), "0", digits), "0").cast(pa.int64())
    broken = _mask(pc.and_(pc.is_valid(strings), pc.is_null(naive)))
    problems = [(broken, "should be an ISO 8601 time, or match the mapping's format")]
    local = pc.add(naive.cast(pa.int64()), fraction)
    bare = _mask(pc.fill_null(pc.equal(offset, ""), False))
    shifted = pc.subtract(local, _offset_us(offset)).cast(TIMESTAMP)
    if zone is None:
        problems.append((bare & ~broken, "has no offset, and the mapping names no timezone"))
        return _whole_ms(pc.if_else(pa.array(bare), None, shifted)), problems
    zoned, more = _zoned(pc.if_else(pa.array(bare), local, None).cast(pa.timestamp("us")), zone)
    return _whole_ms(pc.if_else(pa.array(bare), zoned, shifted)), problems + more


def _offset_us(offset: pa.Array) -> pa.Array:
    """``+05:30``, ``-0800``, ``Z`` or nothing, in microseconds east of UTC."""
    plain = pc.fill_null(pc.if_else(pc.is_in(offset, pa.array(["Z", ""])), "+00:00", offset), "+00:00")
    hours = pc.utf8_slice_codeunits(plain, 1, 3).cast(pa.int64())
    minutes = pc.utf8_slice_codeunits(plain, -2).cast(pa.int64())
    total = pc.multiply(pc.add(pc.multiply(hours, 60), minutes), 60_000_000)
    return pc.if_else(pc.starts_with(plain, "-"), pc.negate(total), total)


def _zoned(naive: pa.Array, zone: str) -> tuple[pa.Array, Problems]:
    """Local times of `zone` in UTC; an hour that occurs twice means its first occurrence."""
    early = pc.assume_timezone(naive, timezone=zone, ambiguous="earliest", nonexistent="earliest")
    late = pc.assume_timezone(naive, timezone=zone, ambiguous="earliest", nonexistent="latest")
    skipped = _mask(pc.fill_null(pc.not_equal(early, late), False))
    return _whole_ms(early.cast(TIMESTAMP)), [(skipped, f"does not exist in {zone}: the clocks went forward")]


def _formatted(strings: pa.Array, pattern: str, zone: str | None) -> tuple[pa.Array, Problems]:
    """Times in a format of one's own, by Python's strptime, each distinct text once."""
    codes = strings.dictionary_encode()
    place = ZoneInfo(zone) if zone else None
    parsed: list[int | None] = []
    for value in codes.dictionary.to_pylist():
        try:
            when = datetime.strptime(value, pattern)
        except ValueError:
            parsed.append(None)
            continue
        if when.tzinfo is None and place is not None:
            when = when.replace(tzinfo=place)
        parsed.append(None if when.tzinfo is None else microseconds(when))
    result = pa.array(parsed, pa.int64()).take(codes.indices).cast(TIMESTAMP)
    broken = _mask(pc.and_(pc.is_valid(strings), pc.is_null(result)))
    return _whole_ms(result), [
        (broken, f"should be a time in the format {pattern} with an offset or timezone")
    ]


def _epoch_times(strings: pa.Array, unit: str) -> tuple[pa.Array, Problems]:
    whole, part, negative, readable = _numbers(strings, _EPOCH)
    if unit == "ns":
        us = whole // 1000
    else:
        factor = _UNIT_US[unit]
        within = whole < 2**62 // factor
        readable &= within
        us = np.where(within, whole, 0) * factor + part // (10**12 // factor)
    us = np.where(negative, -us, us)
    broken = ~readable & _mask(pc.is_valid(strings))
    return _whole_ms(pa.array(us, mask=~readable).cast(TIMESTAMP)), [
        (broken, f"should be a number of {unit}")
    ]


def _numbers(strings: pa.Array, pattern: str) -> tuple[Ints, Ints, Mask, Mask]:
    """Whole part, twelve decimals as an integer, whether negative, whether readable."""
    found = pc.extract_regex(strings, pattern=pattern)
    readable = _mask(found.is_valid())
    sign, whole, part = (pc.fill_null(piece, "") for piece in found.flatten())
    digits = pc.utf8_rpad(part, 12, "0")
    return (
        pc.if_else(pa.array(readable), whole, "0").cast(pa.int64()).to_numpy(zero_copy_only=False),
        digits.cast(pa.int64()).to_numpy(zero_copy_only=False),
        _mask(pc.equal(sign, "-")),
        readable,
    )


def _whole_ms(column: pa.Array) -> pa.Array:
    return pc.floor_temporal(column, unit="millisecond")


def _mask(values: pa.Array) -> Mask:
    return np.array(values.to_numpy(zero_copy_only=False), dtype=bool)


def readable(column: pa.Array) -> list[str | None]:
    """`column` as text for people: whole numbers without a point, anything odd by its own repr."""
    try:
        values: list[str | None] = text(column).to_pylist()
        return values
    except MappingError:
        return [None if value is None else repr(value) for value in column.to_pylist()]
