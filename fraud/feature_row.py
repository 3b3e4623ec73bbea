"""Request-time features of one row, in plain Python: a lone request waits for no numpy.

The same figures as `fraud.feature_batch`, bit for bit: integers are added exactly and rounded
once, every float operation is the same, and distances go through the same function.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping
from math import nan, sqrt
from typing import Final

import numpy as np

from fraud.entities import ENTITIES, WINDOWS
from fraud.feature_batch import DAY_MS, HORIZON_MS, OLDEST_SECONDS, travel
from fraud.feature_list import DAY_AT, HOUR_AT, MOMENT_AT
from fraud.last_seen import ENTRY_BYTES, NEVER
from fraud.profiles import AMOUNT_AGAINST
from fraud.request import NO_LOCATION
from fraud.state_layout import DISTINCT_LIMIT, HEADER_WORDS, STATE_VERSION
from fraud.windows import NOVELTY, bucket_sums

_HEADER: Final = struct.Struct(f"<{HEADER_WORDS}q").unpack_from
_HEADER_BYTES: Final = 8 * HEADER_WORDS
_LENGTHS: Final = tuple(window.milliseconds for window in WINDOWS)
_NO_BUCKETS: Final = ([0] * len(WINDOWS),) * 3
#: Per entity: the request fields that its tables are asked for, how many are counterparties.
_ASKED: Final = tuple(tuple(f"{name}_hash" for name in entity.tracked) for entity in ENTITIES)
_COUNTERPARTIES: Final = tuple(len(entity.counterparties) for entity in ENTITIES)
_MISSING: Final = tuple(
    [nan] * (2 * len(WINDOWS) + len(MOMENT_AT) * (2 + len(entity.counterparties)) + 3 + len(entity.tracked))
    for entity in ENTITIES
)
_LOCATED: Final = tuple(entity.located for entity in ENTITIES)


class _Travel:
    """Where an entity's travel features go once all entities are read, and its last location."""

    __slots__ = ("column", "located_ms", "location")

    def __init__(self, column: int, location: int, located_ms: int) -> None:
        self.column, self.location, self.located_ms = column, location, located_ms


def row_features(
    states: list[bytes | None], request: Mapping[str, int], profiles: Mapping[str, float]
) -> list[float]:
    """`fraud.features.transaction_matrix` for one row of plain numbers."""
    at = request["event_ms"]
    hour = (at % DAY_MS) / 3_600_000
    weekday = (at // DAY_MS + 3) % 7
    row: list[float] = [
        request["amount_reference"], request["channel_code"], request["category_code"],
        request["country_code"], request["currency_code"], hour, weekday, hour < 6, weekday >= 5,
        request["device_hash"] != 0, request["has_ip"], request["has_terminal"],
    ]  # fmt: skip
    travels: list[_Travel] = []
    counts = [_entity(row, travels, state, place, request) for place, state in enumerate(states)]
    if travels:
        number = len(travels)
        travelled = travel(
            np.array([to.location for to in travels]),
            np.array([to.located_ms for to in travels], dtype=np.float64),
            np.array([request["location"]] * number),
            np.array([at] * number),
        ).tolist()
        for to, pair in zip(travels, travelled, strict=True):
            row[to.column : to.column + 2] = pair
    _against(row, counts, request["amount_reference"], profiles)
    return row


def _entity(
    row: list[float], travels: list[_Travel], state: bytes | None, place: int, request: Mapping[str, int]
) -> tuple[float, float]:
    """Append one entity's features; return its counts of the last hour and day (NaN: missing)."""
    at = request["event_ms"]
    header = _present(state, place, at)
    if header is None:
        row += _MISSING[place]
        if _LOCATED[place]:
            row += (nan, nan)
        return nan, nan
    assert state is not None
    words = memoryview(state).cast("q")
    kind, sizes = header[0], header[1]
    events_end = HEADER_WORDS + 2 * (kind >> 16 & 0xFFFF)
    bucket_count = kind >> 32 & 0xFFFF
    times = words[HEADER_WORDS:events_end:2].tolist()
    end = bisect_left(times, at)
    begins = [bisect_left(times, at - length, 0, end) for length in _LENGTHS]
    first = begins[-1]
    amounts = [
        word & 0xFFFFFFFF
        for word in words[HEADER_WORDS + 1 + 2 * first : HEADER_WORDS + 1 + 2 * end : 2].tolist()
    ]
    # Twice the figures, so that half a bucket is an integer.
    counts, totals, squares = (
        bucket_sums(words[events_end : events_end + 3 * bucket_count], header[6], at)
        if bucket_count
        else _NO_BUCKETS
    )
    numbers = [(2 * (end - begin) + twice) / 2 for begin, twice in zip(begins, counts, strict=True)]
    sums = [
        (2 * sum(amounts[begin - first :]) + twice) / 2 for begin, twice in zip(begins, totals, strict=True)
    ]
    row += numbers
    row += sums
    means: list[float] = []
    deviations: list[float] = []
    for window in MOMENT_AT:
        number = numbers[window]
        if number > 0:
            inside = amounts[begins[window] - first :]
            mean = sums[window] / number
            power = (2 * sum([amount * amount for amount in inside]) + squares[window]) / 2
            variance = power / number - mean * mean
            means.append(mean)
            deviations.append(sqrt(variance) if variance > 0 else 0.0)
        else:
            means.append(nan)
            deviations.append(nan)
    row += means
    row += deviations
    new = _tables(row, words, events_end + 3 * bucket_count, sizes, place, request)
    row.append((at - times[end - 1]) / 1000.0 if end else nan)
    row.append(min((at - header[4]) / 1000.0, OLDEST_SECONDS) if header[4] < at else nan)
    deviation = deviations[-1]
    row.append((request["amount_reference"] - means[-1]) / deviation if deviation > 0 else nan)
    row += new
    if _LOCATED[place]:
        located = 7 if header[7] < at else 9
        if NEVER < header[located] < at and request["location"] != NO_LOCATION:
            travels.append(_Travel(len(row), header[located + 1], header[located]))
        row += (nan, nan)
    return numbers[HOUR_AT], numbers[DAY_AT]


def _present(state: bytes | None, place: int, at: int) -> tuple[int, ...] | None:
    """The header of a sound state within its horizon, else None."""
    if not state or len(state) < _HEADER_BYTES:
        return None
    header: tuple[int, ...] = _HEADER(state)
    kind, sizes = header[0], header[1]
    events = kind >> 16 & 0xFFFF
    if (
        kind & 0xFFFF != STATE_VERSION | place << 8
        or not events
        or header[2] < 1000 * (at - HORIZON_MS)
        or len(state)
        != _HEADER_BYTES
        + 16 * events
        + 24 * (kind >> 32 & 0xFFFF)
        + sum([(sizes >> shift & 0xFFFF) // ENTRY_BYTES for shift in (0, 16, 32)]) * ENTRY_BYTES
    ):
        return None
    return header


def _tables(
    row: list[float], words: memoryview, begin: int, sizes: int, place: int, request: Mapping[str, int]
) -> list[float]:
    """Append distinct counts; return the novelty features."""
    at = request["event_ms"]
    new: list[float] = []
    for index, asked in enumerate(_ASKED[place]):
        end = begin + (sizes >> 16 * index & 0xFFFF) // ENTRY_BYTES * 3
        lasts = words[begin + 1 : end : 3].tolist()
        if lasts and lasts[-1] >= at:
            befores = words[begin + 2 : end : 3].tolist()
            lasts = [last if last < at else before for last, before in zip(lasts, befores, strict=True)]
            ordered = sorted([last for last in lasts if last < at])
        else:
            ordered = lasts
        if index < _COUNTERPARTIES[place]:
            for window in MOMENT_AT:
                distinct = len(ordered) - bisect_left(ordered, at - _LENGTHS[window])
                row.append(distinct if distinct < DISTINCT_LIMIT else DISTINCT_LIMIT)
        key = request[asked]
        if key:
            keys = words[begin:end:3].tolist()
            novel = 1.0
            if key in keys and 0 < at - lasts[keys.index(key)] <= NOVELTY[place][index]:
                novel = 0.0
            new.append(novel)
        else:
            new.append(nan)
        begin = end
    return new


def _against(
    row: list[float], counts: list[tuple[float, float]], amount: int, profiles: Mapping[str, float]
) -> None:
    for name, (hour, day) in zip(AMOUNT_AGAINST, counts, strict=False):
        mean = profiles[f"{name}_amount_mean_30d"]
        deviation = profiles[f"{name}_amount_std_30d"]
        largest = profiles[f"{name}_amount_max_30d"]
        month = profiles[f"{name}_txn_count_30d"]
        row.append((amount - mean) / deviation if deviation > 0 else nan)
        row.append(amount / mean if mean > 0 else nan)
        row.append(amount / largest if largest > 0 else nan)
        row.append(hour * 720.0 / month if month > 0 else nan)
        row.append(day * 30.0 / month if month > 0 else nan)
    deviation = profiles["merchant_category_amount_std_30d"]
    mean = profiles["merchant_category_amount_mean_30d"]
    row.append((amount - mean) / deviation if deviation > 0 else nan)
