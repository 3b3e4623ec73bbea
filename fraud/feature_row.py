"""Request-time features of one row, in plain Python: a lone request waits for no numpy.

The same figures as `fraud.feature_batch`, bit for bit: integers are added exactly and rounded
once, every float operation is the same, and distances go through the same function.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from math import nan, radians, sqrt
from typing import Final

import numpy as np

from fraud.entities import ENTITIES, WINDOWS
from fraud.feature_batch import DAY_MS, EARTH_KM, HORIZON_MS, OLDEST_SECONDS
from fraud.feature_list import DAY_AT, HOUR_AT, MOMENT_AT
from fraud.last_seen import NEVER
from fraud.observation import NO_LOCATION
from fraud.profiles import AMOUNT_AGAINST, USUAL_PLACE
from fraud.row_tables import asked_keys, read_tables
from fraud.state_layout import (
    BUCKETS_MASK,
    BUCKETS_SHIFT,
    EVENTS_MASK,
    EVENTS_SHIFT,
    FIRST,
    HEADER_WORDS,
    KIND,
    LEAST_BYTES,
    OLD_VERSION,
    STATE_VERSION,
    TABLE_BITS,
    TABLE_MASK,
    TABLES_SHIFT,
    TIME1,
    TIME2,
    VERSION,
)
from fraud.state_upgrade import readable
from fraud.windows import bucket_sums

#: Where the header says how many entries the second and third table have.
_SECOND, _THIRD = TABLES_SHIFT + TABLE_BITS, TABLES_SHIFT + 2 * TABLE_BITS
_HEADERS: Final = tuple(struct.Struct(f"<{words}q").unpack_from for words in HEADER_WORDS)
_LENGTHS: Final = tuple(window.milliseconds for window in WINDOWS)
_NO_SQUARES: Final = [0] * len(WINDOWS)
_MISSING: Final = tuple(
    [nan] * (2 * len(WINDOWS) + len(MOMENT_AT) * (2 + len(entity.counterparties)) + 3 + len(entity.tracked))
    for entity in ENTITIES
)
_LOCATED: Final = tuple(entity.located for entity in ENTITIES)
_LATITUDE, _LONGITUDE = USUAL_PLACE


class _Travel:
    """Where a distance goes once all are known, the place it is from in radians, and when somebody
    was there, for the speed beside it (0: none is asked for)."""

    __slots__ = ("column", "latitude", "located_ms", "longitude")

    def __init__(self, column: int, place: tuple[float, float], located_ms: int) -> None:
        self.column, self.located_ms = column, located_ms
        self.latitude, self.longitude = place


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
    asked = asked_keys(request)
    counts = [_entity(row, travels, state, place, request, asked) for place, state in enumerate(states)]
    _against(row, counts, request["amount_reference"], profiles)
    usual_latitude, usual_longitude = profiles[_LATITUDE], profiles[_LONGITUDE]
    if usual_latitude == usual_latitude and request["location"] != NO_LOCATION:
        travels.append(_Travel(len(row), (radians(usual_latitude), radians(usual_longitude)), 0))
    row.append(nan)
    if travels:
        _travel(row, travels, request["location"], at)
    return row


def _entity(
    row: list[float], travels: list[_Travel], state: bytes | None, place: int,
    request: Mapping[str, int], asked: list[bytes],
) -> tuple[float, float]:  # fmt: skip
    """Append one entity's features; return its counts of the last hour and day (NaN: missing)."""
    at = request["event_ms"]
    found = _present(state, place, at)
    if found is None:
        row += _MISSING[place]
        if _LOCATED[place]:
            row += (nan, nan)
        return nan, nan
    state, header, events_end, buckets = found
    words = memoryview(state).cast("q")
    buckets_end = events_end + 3 * buckets + 1 if buckets else events_end
    events = words[HEADER_WORDS[place] : events_end].tolist()
    times = events[::2]
    end = bisect_left(times, at)
    begins = [bisect_left(times, at - length, 0, end) for length in _LENGTHS]
    first = begins[-1]
    amounts = [word & 0xFFFFFFFF for word in events[2 * first + 1 : 2 * end : 2]]
    # Sums of all amounts before each: what lies in a window is a difference.
    totals = list(accumulate(amounts, initial=0))
    powers = list(accumulate([amount * amount for amount in amounts], initial=0))
    total, power = totals[-1], powers[-1]
    if buckets:
        # Twice the figures, so that half a bucket is an integer.
        counts, more, squares = bucket_sums(words[events_end:buckets_end], at)
        numbers = [(2 * (end - begin) + twice) / 2 for begin, twice in zip(begins, counts, strict=True)]
        sums = [
            (2 * (total - totals[begin - first]) + twice) / 2
            for begin, twice in zip(begins, more, strict=True)
        ]
    else:
        squares = _NO_SQUARES
        numbers = [float(end - begin) for begin in begins]
        sums = [float(total - totals[begin - first]) for begin in begins]
    row += numbers
    row += sums
    means: list[float] = []
    deviations: list[float] = []
    for window in MOMENT_AT:
        number = numbers[window]
        if number > 0:
            mean = sums[window] / number
            inside = (2 * (power - powers[begins[window] - first]) + squares[window]) / 2
            variance = inside / number - mean * mean
            means.append(mean)
            deviations.append(sqrt(variance) if variance > 0 else 0.0)
        else:
            means.append(nan)
            deviations.append(nan)
    row += means
    row += deviations
    new = read_tables(row, state, words[buckets_end:], header[KIND], place, asked, at)
    row.append((at - times[end - 1]) / 1000.0 if end else nan)
    row.append(min((at - header[FIRST]) / 1000.0, OLDEST_SECONDS) if header[FIRST] < at else nan)
    deviation = deviations[-1]
    row.append((request["amount_reference"] - means[-1]) / deviation if deviation > 0 else nan)
    row += new
    if _LOCATED[place]:
        located = TIME1 if header[TIME1] < at else TIME2
        if NEVER < header[located] < at and request["location"] != NO_LOCATION:
            travels.append(_Travel(len(row), _radians(header[located + 1]), header[located]))
        row += (nan, nan)
    return numbers[HOUR_AT], numbers[DAY_AT]


def _present(state: bytes | None, place: int, at: int) -> tuple[bytes, tuple[int, ...], int, int] | None:
    """A sound state within its horizon, its header, the word where its events end, how many buckets."""
    if not state or len(state) < LEAST_BYTES:
        return None
    if state[0] == OLD_VERSION:
        state = readable(place, state)
    words = HEADER_WORDS[place]
    if not state or len(state) < 8 * words:
        return None
    header: tuple[int, ...] = _HEADERS[place](state)
    kind = header[KIND]
    events_end = words + 2 * (kind >> EVENTS_SHIFT & EVENTS_MASK)
    buckets = kind >> BUCKETS_SHIFT & BUCKETS_MASK
    tables = kind >> TABLES_SHIFT
    uses = (
        (tables & TABLE_MASK) + (tables >> TABLE_BITS & TABLE_MASK) + (tables >> 2 * TABLE_BITS & TABLE_MASK)
    )
    if (
        kind & 0xFFFF != STATE_VERSION | place << 8
        or events_end == words
        or header[VERSION] < 1000 * (at - HORIZON_MS)
        or len(state) != 8 * (events_end + 3 * buckets + (buckets > 0) + 2 * uses)
    ):
        return None
    return state, header, events_end, buckets


def _travel(row: list[float], travels: list[_Travel], there: int, at: int) -> None:
    """Distances and speeds as `fraud.feature_batch` has them, into `row`: numpy's sines (no other's
    have the same last bit), everything else in Python."""
    latitude, longitude = _radians(there)
    halves: list[float] = []
    latitudes: list[float] = []
    for to in travels:
        halves += ((latitude - to.latitude) / 2, (longitude - to.longitude) / 2)
        latitudes.append(to.latitude)
    latitudes.append(latitude)
    sines, cosines = np.sin(halves).tolist(), np.cos(latitudes).tolist()
    straight = []
    for place in range(len(travels)):
        north, east = sines[2 * place : 2 * place + 2]
        half = north * north + cosines[place] * cosines[-1] * (east * east)
        straight.append(sqrt(min(half, 1.0)) if half >= 0 else nan)  # below 0: damaged latitudes
    for to, angle in zip(travels, np.arcsin(straight).tolist(), strict=True):
        kilometres = 2 * EARTH_KM * angle
        row[to.column] = kilometres
        if to.located_ms:
            row[to.column + 1] = kilometres / ((at - to.located_ms) / 3_600_000.0)


def _radians(packed: int) -> tuple[float, float]:
    """Latitude and longitude of a packed location, in radians."""
    low = packed & 0xFFFFFFFF
    return radians((packed >> 32) / 1e6), radians((low - (low >> 31 << 32)) / 1e6)


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
