"""Somebody's times as UTC milliseconds: ISO 8601 as databases and providers print it, formats, numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.columns import Ints, Mask, Problems, mask_of, matches, numbers, text, without_powers
from datasets.fields import FieldMapping, MappingError
from stores.lake import TIMESTAMP, microseconds

_EPOCH: Final = r"^\s*(?P<sign>-?)(?P<whole>[0-8]\d{18}|\d{1,18})(?:\.(?P<part>\d{1,12})\d{0,18})?\s*$"
#: ISO 8601 as it is, and as databases print it: "2019-01-01 00:00:00 UTC", "+00", "[UTC]", a comma. A zone in
#: brackets only repeats what an offset says.
_ISO: Final = (
    r"^\s*(?P<date>\d{4}-[01]\d-[0-3]\d)(?:[Tt ](?P<time>(?:[01]\d|2[0-3]):[0-5]\d)(?P<second>:[0-5]\d)?"
    r"(?P<part>[.,]\d{1,30})?\s?(?P<offset>(?:Z|z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)(?:\[[A-Za-z/_+-]{1,40}\])?"
    r"|UTC|GMT)?(?:\[(?:UTC|GMT)\])?)?\s*$"
)
#: 20190101T000005, 20190101000005, and the days of 2019/01/01.
_BASIC: Final = r"^\s*(\d{4})(\d\d)(\d\d)[Tt ]?(\d\d)(\d\d)(\d\d)"
_SLASHES: Final = r"^\s*(\d{4})/(\d\d)/(\d\d)"
_NOT_ISO: Final = "should be an ISO 8601 time, or match the mapping's format"
#: What a time that is not ISO 8601 looks like, and what the mapping could say of it.
_LOOKS: Final = (
    (r"^\s*1\d{9}(\.\d+)?\s*$", "a number of seconds: say epoch: s"),
    (r"^\s*1\d{12}(\.\d+)?\s*$", "a number of milliseconds: say epoch: ms"),
    (r"^\s*1\d{15}\s*$", "a number of microseconds: say epoch: us"),
    (r"^\s*1\d{18}\s*$", "a number of nanoseconds: say epoch: ns"),
    (r"^\s*[34]\d{4}(\.\d+)?\s*$", "a spreadsheet's day number: say epoch: sheet"),
    (r"^\s*\d{1,9}(\.\d+)?\s*$", "a relative time: say epoch (s, min, h, d) and origin"),
    (r"\d\s?[AaPp]\.?[Mm]", "a clock of twelve hours: say format, with %I and %p"),
    (r"^\s*\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}", "day and month in an order of their own: say format"),
    (r"[A-Z]{3,4}\s*$", "a zone by its abbreviation, which is ambiguous: say timezone and format"),
)
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
_EARLIEST_US: Final = 946_684_800_000_000  # 2000-01-01, as in the contract
#: Units that are taken for one another, and how many microseconds a thousand of each are.
_UNITS_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
#: Smaller numbers are nobody's time since 1970.
_SMALL: Final = 10**8
#: Day 0 of spreadsheets (with the leap day of 1900 that there never was).
_SHEET: Final = datetime(1899, 12, 30, tzinfo=UTC)


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
    if source.epoch == "sheet":
        return _sheet_times(strings, source.timezone or "UTC")
    if source.epoch is not None:
        return _epoch_times(strings, source.epoch, source.origin)
    if source.format is not None:
        return _formatted(strings, source.format, source.timezone)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise MappingError("the times are plain numbers: say epoch in the mapping: s, ms, us or ns")
    return _iso_times(strings, source.timezone)


def _iso_times(strings: pa.Array, zone: str | None) -> tuple[pa.Array, Problems]:
    written = strings
    strings = pc.replace_substring_regex(strings, _BASIC, r"\1-\2-\3T\4:\5:\6")
    strings = pc.replace_substring_regex(strings, _SLASHES, r"\1-\2-\3")
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
    broken = mask_of(pc.and_(pc.is_valid(strings), pc.is_null(naive)))
    problems: Problems = []
    if broken.any():
        problems = [
            (broken & matches(written, like), f"{_NOT_ISO}; it looks like {what}") for like, what in _LOOKS
        ]
    problems.append((broken, _NOT_ISO))
    local = pc.add(naive.cast(pa.int64()), fraction)
    bare = mask_of(pc.fill_null(pc.equal(offset, ""), False))
    shifted = pc.subtract(local, _offset_us(offset)).cast(TIMESTAMP)
    if zone is None:
        problems.append((bare & ~broken, "has no offset, and the mapping names no timezone"))
        return _whole_ms(pc.if_else(pa.array(bare), None, shifted)), problems
    zoned, more = _zoned(pc.if_else(pa.array(bare), local, None).cast(pa.timestamp("us")), zone)
    return _whole_ms(pc.if_else(pa.array(bare), zoned, shifted)), problems + more


def _offset_us(offset: pa.Array) -> pa.Array:
    """``+05:30``, ``-0800``, ``Z`` or nothing, in microseconds east of UTC."""
    offset = pc.replace_substring_regex(offset, r"\[.*", "")
    nothing = pc.is_in(offset, pa.array(["Z", "z", "", "UTC", "GMT"]))
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
    skipped = mask_of(pc.fill_null(pc.not_equal(early, late), False))
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
    broken = mask_of(pc.and_(pc.is_valid(strings), pc.is_null(result)))
    return _whole_ms(result), [
        (broken, f"should be a time in the format {pattern} with an offset or timezone")
    ]


def _epoch_times(strings: pa.Array, unit: str, origin: datetime | None = None) -> tuple[pa.Array, Problems]:
    strings = without_powers(strings)
    whole, part, negative, readable = numbers(strings, _EPOCH)
    unreadable = ~readable & mask_of(pc.is_valid(strings))
    if unit == "ns":
        us, far = whole // 1000, np.zeros(len(whole), dtype=bool)
    else:
        factor = _UNIT_US[unit]
        far = readable & (whole >= 2**62 // factor)
        # Twelve decimals of a second in microseconds, or six of what is longer: both fit into 64 bits.
        finest = part // (10**12 // factor) if factor <= 10**6 else part // 10**6 * factor // 10**6
        us = np.where(far, 0, whole) * factor + finest
    us = np.where(negative, -us, us)
    since = 0 if origin is None else microseconds(origin)
    late = readable & (far | (us + since >= _LATEST_US))
    us = np.where(late, 0, us) + since
    early = readable & ~late & (us < _EARLIEST_US)
    problems: Problems = [(unreadable, f"should be a number of {unit}")]
    for wrong, where in ((late, "after the year 2099"), (early, "before the year 2000")):
        if wrong.any():
            if origin is None:
                problems += _other_units(wrong, whole, unit, where)
                problems.append(
                    (wrong & (whole < _SMALL), f"lies {where}: counted since the data begin? say origin")
                )
            problems.append((wrong, f"lies {where}"))
    return _whole_ms(pa.array(us, mask=~readable | late | early).cast(TIMESTAMP)), problems


def _other_units(wrong: Mask, whole: Ints, unit: str, where: str) -> Problems:
    """In which other unit the `wrong` numbers would be times between 2000 and 2100."""
    found: Problems = []
    for other, nanoseconds in _UNITS_NS.items():
        fits = (whole >= _EARLIEST_US * 1000 // nanoseconds) & (whole < _LATEST_US * 1000 // nanoseconds)
        if other != unit:
            found.append((wrong & fits, f"lies {where}: {other} instead of {unit}?"))
    return found


def _sheet_times(strings: pa.Array, zone: str) -> tuple[pa.Array, Problems]:
    """Day numbers of a spreadsheet, which stand for local times; nearest milliseconds."""
    strings = without_powers(strings)
    whole, part, negative, readable = numbers(strings, _EPOCH)
    fitting = readable & ~negative & (whole < 100_000)
    millis = np.where(fitting, whole, 0) * 86_400_000 + (part // 10**3 * 86_400 + 500_000) // 10**6
    naive = pa.array(microseconds(_SHEET) + millis * 1000, mask=~fitting).cast(pa.timestamp("us"))
    found, more = _zoned(naive, zone)
    broken = ~fitting & mask_of(pc.is_valid(strings))
    return found, [(broken, "should be a spreadsheet's day number, such as 43466.5"), *more]


def _whole_ms(column: pa.Array) -> pa.Array:
    return pc.floor_temporal(column, unit="millisecond")
