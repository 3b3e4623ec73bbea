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
from datasets.tokens import read_key, token_column
from fraud.contract.canonical import normal_address
from fraud.contract.money import MINOR_DIGITS
from fraud.contract.transaction import EXPECTED, LARGEST_AMOUNT
from stores.lake import TIMESTAMP, microseconds

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_TOO_LARGE: Final = LARGEST_AMOUNT + 1
#: An amount that may come from a binary float counts as exact this close to a whole minor unit.
_FLOAT_TOLERANCE: Final = 1e-6
#: Sign, whole part and twelve decimals; further decimals are dropped.
_NUMBER: Final = r"^\s*(?P<sign>[+-]?)(?P<whole>\d{1,15})(?:\.(?P<part>\d{1,12})\d{0,18})?\s*$"
_EPOCH: Final = r"^\s*(?P<sign>-?)(?P<whole>[0-8]\d{18}|\d{1,18})(?:\.(?P<part>\d{1,12}))?\s*$"
_POWER: Final = r"^\s*-?\d{1,18}(\.\d{1,17})?[eE][+-]?\d{1,2}\s*$"
#: ISO 8601 as it is, and as databases print it: "2019-01-01 00:00:00 UTC", "+00", "[UTC]", a comma.
_ISO: Final = (
    r"^\s*(?P<date>\d{4}-[01]\d-[0-3]\d)(?:[T ](?P<time>(?:[01]\d|2[0-3]):[0-5]\d)(?P<second>:[0-5]\d)?"
    r"(?P<part>[.,]\d{1,30})?\s?(?P<offset>Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?|UTC|GMT)?(?:\[(?:UTC|GMT)\])?)?\s*$"
)
_BASIC: Final = r"^\s*(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)"
#: A 32-bit float has 24 bits: beyond them whole numbers run together.
_FLOAT32_WHOLE: Final = 2.0**24
_FINER: Final = "has more decimals than the minor unit of its currency"
_UNIT_US: Final = {
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
#: Epoch times beyond 2100 are another unit's, or a slip.
_LATEST_US: Final = 4_102_444_800_000_000
_GROUPED: Final = r"^\s*[+-]?\d{1,3}(?:\.\d{3})+(?:,\d*)?\s*$"
_COMMA: Final = r"^\s*[+-]?\d*(?:,\d*)?\s*$"


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


def tidy(strings: pa.Array) -> pa.Array:
    """`strings` composed (Unicode NFC) and trimmed, as the contract has text; what is left empty is null."""
    if not pc.all(pc.string_is_ascii(strings)).as_py():
        strings = pc.utf8_normalize(strings, form="NFC")
    strings = pc.utf8_trim_whitespace(strings)
    return pc.if_else(pc.equal(strings, ""), None, strings)


def without_words(batch: pa.RecordBatch, words: tuple[str, ...], names: set[str]) -> pa.RecordBatch:
    """`batch` with null in place of `words` (NULL, nan, ...) and blanks in the text columns of `names`."""
    value_set = pa.array(["", *(word.lower() for word in words)], pa.string())
    for place, name in enumerate(batch.schema.names):
        column = batch.column(place)
        if name in names and (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            said = pc.utf8_lower(pc.utf8_trim_whitespace(column)).cast(pa.string())
            nothing = pc.is_in(said, value_set=value_set)
            if pc.any(nothing).as_py():
                batch = batch.set_column(place, name, pc.if_else(nothing, None, column))
    return batch


def normal_addresses(column: pa.Array) -> tuple[pa.Array, Problems]:
    """IP addresses in the contract's form, each distinct one once."""
    codes = column.dictionary_encode()
    made = [normal_address(value) for value in codes.dictionary.to_pylist()]
    found = pa.array(made, pa.string()).take(codes.indices)
    broken = _mask(pc.and_(pc.is_valid(column), pc.is_null(found)))
    return found, [(broken, f"should be {EXPECTED['ip']}")]


def in_iso_digits(minor: pa.Array, currency: pa.Array, source: FieldMapping) -> tuple[pa.Array, Problems]:
    """A provider's minor units in ISO 4217's, where `minor_digits` says that they differ."""
    values = pc.fill_null(minor, 0).to_numpy(zero_copy_only=False).copy()
    finer = np.zeros(len(values), dtype=bool)
    for code, digits in source.minor_digits.items():
        rows = _mask(pc.fill_null(pc.equal(currency, code), False))
        more = MINOR_DIGITS.get(code, digits) - digits
        if more >= 0:
            values[rows] *= 10**more
        else:
            finer |= rows & (values % 10**-more != 0)
            values[rows] //= 10**-more
    return pa.array(values, mask=_mask(pc.is_null(minor))), [(finer, _FINER)]


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
    values = tidy(values)
    if source.tokenize:
        values = token_column(values, read_key())
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
    found, problems = _amounts(column, digits, source)
    return (pc.abs(found) if source.negative == "absolute" else found), problems


def _amounts(column: pa.Array, digits: Ints, source: FieldMapping) -> tuple[pa.Array, Problems]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), column.type.value_type
    if pa.types.is_float32(kind):
        # The shortest decimal that is this number, as every program prints it, where it can tell cents apart.
        values = column.to_numpy(zero_copy_only=False).astype(np.float64)
        coarse = np.abs(values) * 10.0**digits >= _FLOAT32_WHOLE
        strings = pc.if_else(pa.array(coarse), None, column.cast(pa.string()))
        found, problems = _amounts(strings, digits, source)
        return found, [*problems, (coarse, "is a 32-bit float too large to hold its minor units")]
    if pa.types.is_floating(kind):
        return _float_amounts(column, digits)
    if pa.types.is_decimal(kind):
        return _decimal_amounts(column, digits)
    strings = text(column)
    if source.decimal == ",":
        sound = pc.or_(pc.match_substring_regex(strings, _GROUPED), pc.match_substring_regex(strings, _COMMA))
        plain = pc.replace_substring(pc.replace_substring(strings, ".", ""), ",", ".")
        # A point that groups no three digits is no point of a decimal comma: it stays, to be refused.
        strings = pc.if_else(sound, plain, pc.binary_join_element_wise("?", strings, ""))
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
        return _epoch_times(strings, source.epoch, source.origin)
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
    strings = pc.replace_substring_regex(strings, _BASIC, r"\1-\2-\3T\4:\5:\6")
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
    nothing = pc.is_in(offset, pa.array(["Z", "", "UTC", "GMT"]))
    plain = pc.fill_null(pc.if_else(nothing, "+00:00", offset), "+00:00")
    hourly = pc.equal(pc.utf8_length(plain), 3)
    plain = pc.if_else(hourly, pc.binary_join_element_wise(plain, "00", ""), plain)
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


def _epoch_times(strings: pa.Array, unit: str, origin: datetime | None = None) -> tuple[pa.Array, Problems]:
    power = _mask(pc.fill_null(pc.match_substring_regex(strings, _POWER), False))
    if power.any():  # 1e+05, as spreadsheets write it
        written = [
            f"{Decimal(value.strip()):f}" if odd else value
            for value, odd in zip(strings.to_pylist(), power, strict=True)
        ]
        strings = pa.array(written, pa.string())
    whole, part, negative, readable = _numbers(strings, _EPOCH)
    if unit == "ns":
        us = whole // 1000
    else:
        factor = _UNIT_US[unit]
        within = whole < 2**62 // factor
        readable &= within
        # Twelve decimals of a second in microseconds, or six of what is longer: both fit into 64 bits.
        finest = part // (10**12 // factor) if factor <= 10**6 else part // 10**6 * factor // 10**6
        us = np.where(within, whole, 0) * factor + finest
    us = np.where(negative, -us, us)
    since = 0 if origin is None else microseconds(origin)
    late = readable & (us + since >= _LATEST_US)
    us = np.where(late, 0, us) + since
    broken = ~readable & _mask(pc.is_valid(strings))
    finer = {"s": "ms", "ms": "us", "us": "ns"}.get(unit)
    reason = "lies after the year 2099" + (f": {finer} instead of {unit}?" if finer else "")
    return _whole_ms(pa.array(us, mask=~readable | late).cast(TIMESTAMP)), [
        (broken, f"should be a number of {unit}"),
        (late, reason),
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
