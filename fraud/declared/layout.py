"""How the state of a declared stream view is laid out: derived from its aggregates, named by a digest.

A state is whole 64-bit words, little-endian:

    header    KIND, VERSION, FIRST, SEEDED, SINCE, COUNTS, then how long stairs, tables, sketches are
    events    time; transaction's high hash bits | flags; one double per value column   (newest, exact)
    buckets   oldest, newest, count; one double per flag; count, sum, squares per moment (older, bounded)
    stairs    per maximum and minimum of what is in buckets: newest time, extreme, least extreme of its group
    tables    per distinct or new column: entries of `fraud.state.last_seen`
    sketches  per distinct column: values that its table had no room for (`fraud.declared.sketch`)

A layout holds what any aggregate over these columns needs, and for how long. So a further aggregate over the
same columns with no longer window leaves the layout, and every state, as it is. Another layout has another
digest; its states are unknown to readers of this one, never misread. So has a view that was gone for a
while and came back: its old states missed what happened meanwhile.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud.declared.declaration import LOCATION, OF_CONDITIONS, OF_PLACES, OF_VALUES, StreamView
from fraud.declared.sketch_size import MOST_BYTES as MOST_SKETCH_BYTES
from fraud.state.last_seen import ENTRY_BYTES, KEY_BYTES, NEVER

#: Raised when the meaning of the words changes, whatever is declared.
FORMAT: Final = 2
#: In the lowest byte of a declared state's first word, which no standard state has there.
DECLARED: Final = 0x80 | FORMAT
KIND, VERSION, FIRST, SEEDED, SINCE, COUNTS = range(6)
FIXED_WORDS: Final = 6
DIGEST_SHIFT: Final = 16
# Word COUNTS: events, then buckets, then those of them that no merge has looked at yet.
EVENTS_BITS, BUCKETS_BITS = 8, 16
COUNT_MASKS: Final = (0xFF, 0xFFFF, 0xFFFF)

#: Kept exactly: the newest 64, and 8 more, since a read leaves the newest event and its ties out.
EXACT: Final = 64
KEPT: Final = EXACT + 8
FOLDED: Final = 16
MOST_BUCKETS: Final = 320
#: Half a bucket at a window's edge is at most this share of all that is newer.
ERROR: Final = 0.02
#: Maxima and minima: exact up to so many descending steps, then within `STEP` of the truth.
STEPS: Final = 64
MOST_STEPS: Final = STEPS + 8
STEP: Final = 0.01
#: Different values: exact up to so many, then within `DISTINCT_ERROR` of the truth for 999 entities of
#: 1,000, and within `DISTINCT_MEDIAN` for half of them.
DISTINCT: Final = 64
DISTINCT_ERROR: Final = 0.12
DISTINCT_MEDIAN: Final = 0.05
MOST_ENTRIES: Final = DISTINCT + 2
#: How late an event may be and still be counted where it belongs.
LATENESS_MS: Final = 2 * 3_600_000
STAIR_WORDS: Final = 3

(
    COUNT, COUNT_IF, SUM, MEAN, STD, MAX, MIN, LAST, DISTINCT_OF, NEW, ZSCORE, SINCE_LAST, SINCE_FIRST,
    DISTANCE, SPEED,
) = range(15)  # fmt: skip
_CODE: Final = {
    "count": COUNT, "count_if": COUNT_IF, "sum": SUM, "mean": MEAN, "std": STD, "max": MAX, "min": MIN,
    "last": LAST, "count_distinct": DISTINCT_OF, "new": NEW, "zscore": ZSCORE,
    "seconds_since_last": SINCE_LAST, "seconds_since_first": SINCE_FIRST,
    "distance_km": DISTANCE, "speed_kmh": SPEED,
}  # fmt: skip
_MOMENTS: Final = frozenset({"sum", "mean", "std", "zscore"})
#: What older events have to be counted or summed for.
_IN_BUCKETS: Final = _MOMENTS | OF_CONDITIONS | {"count"}
_WITHOUT_EVENTS: Final = OF_VALUES | {"seconds_since_last", "seconds_since_first"}
_COORDINATES: Final = ("latitude", "longitude")
_EXTREMES: Final = frozenset({"max", "min"})


@dataclass(frozen=True, slots=True)
class Layout:
    """What a stream view's states hold. `operations` has a row per aggregate: code, window (ms), column in
    its group, and the n of `last`, or the value column of a maximum or minimum. Retentions are milliseconds;
    stairs are maxima first, then minima. The first `moments` of the value columns are summed in buckets,
    if `bucketed`. `sketched` says of each table whether values are counted beyond it."""

    view: str
    key: str
    values: tuple[str, ...]
    moments: int
    flags: tuple[str, ...]
    highs: tuple[str, ...]
    lows: tuple[str, ...]
    tables: tuple[str, ...]
    sketched: tuple[bool, ...]
    bucketed: bool
    retention_ms: int
    stair_retention_ms: tuple[int, ...]
    table_retention_ms: tuple[int, ...]
    operations: NDArray[np.int64]
    names: tuple[str, ...]
    ttl_ms: int
    known_from_ms: int
    digest: int
    event_words: int = field(init=False)
    bucket_words: int = field(init=False)
    #: The header of a state that has seen nothing.
    blank: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Derive what every event asks for."""
        words = [0] * self.header_words
        words[KIND], words[FIRST], words[SINCE] = self.kind, NEVER, self.known_from_ms
        object.__setattr__(self, "event_words", 2 + len(self.values))
        object.__setattr__(self, "bucket_words", 3 + len(self.flags) + 3 * self.moments)
        object.__setattr__(self, "blank", struct.pack(f"<{len(words)}q", *words))

    @property
    def parts(self) -> int:
        """Stairs, tables and, one of each table, sketches."""
        return len(self.highs) + len(self.lows) + 2 * len(self.tables)

    @property
    def header_words(self) -> int:
        return FIXED_WORDS + -(-self.parts // 8)

    @property
    def shape(self) -> NDArray[np.int64]:
        """What compiled loops need: header, event and bucket words, flags, moments, stairs, tables, maxima,
        the kind word of its states."""
        return np.array(
            [
                self.header_words, self.event_words, self.bucket_words, len(self.flags), self.moments,
                len(self.highs) + len(self.lows), len(self.tables), len(self.highs), self.kind,
            ],
            dtype=np.int64,
        )  # fmt: skip

    @property
    def kind(self) -> int:
        word = self.digest << DIGEST_SHIFT | DECLARED
        return word - (1 << 64) if word >> 63 else word

    @property
    def record(self) -> struct.Struct:
        """One event as bytes: its words of the exact part, then key bytes of tables."""
        return _record(len(self.values), len(self.tables))

    def most_bytes(self) -> int:
        """The largest that a state can become."""
        words = self.header_words + (KEPT + FOLDED) * self.event_words
        words += MOST_BUCKETS * self.bucket_words * self.bucketed
        words += MOST_STEPS * STAIR_WORDS * (len(self.highs) + len(self.lows))
        return (
            8 * words + ENTRY_BYTES * MOST_ENTRIES * len(self.tables) + MOST_SKETCH_BYTES * sum(self.sketched)
        )


@lru_cache(maxsize=256)
def _record(values: int, tables: int) -> struct.Struct:
    keys = f"{KEY_BYTES}s" * tables
    return struct.Struct(f"<qq{values}d{keys}{-KEY_BYTES * tables % 8}x")


def layout_of(view: StreamView) -> Layout:
    """The layout that the aggregates of `view` need."""
    moments = _columns(view, _MOMENTS)
    flags, tables = _columns(view, OF_CONDITIONS), _columns(view, OF_VALUES)
    highs, lows = _columns(view, {"max"}), _columns(view, {"min"})
    places_asked = _COORDINATES if any(each.function in OF_PLACES for each in view.aggregates) else ()
    values = tuple(dict.fromkeys([*moments, *highs, *lows, *_columns(view, {"last"}), *places_asked]))
    places = {"count_if": flags, "max": highs, "min": lows, "count_distinct": tables, "new": tables}
    rows = []
    for each in view.aggregates:
        group = places.get(each.function, values)
        if each.column == LOCATION:  # latitude, and in place of the number of `last` longitude
            place, nth = map(values.index, _COORDINATES)
        else:
            place = group.index(each.column) if each.column else -1
            nth = values.index(each.column) if each.function in _EXTREMES else each.nth
        # Minima stand behind the maxima.
        rows.append(
            (_CODE[each.function], each.window_ms, place + len(highs) * (each.function == "min"), nth)
        )
    # Tables remember by themselves, and the newest event stays however old it is.
    windows = [each.window_ms for each in view.aggregates if each.function not in _WITHOUT_EVENTS]
    retention = max(windows, default=0) + LATENESS_MS
    stair_retention = tuple([_longest(view, {"max"}, name) for name in highs]) + tuple(
        [_longest(view, {"min"}, name) for name in lows]
    )
    table_retention = tuple([_longest(view, OF_VALUES, name) for name in tables])
    counted = _columns(view, {"count_distinct"})
    sketched = tuple([name in counted for name in tables])
    bucketed = any(each.function in _IN_BUCKETS for each in view.aggregates)
    content = (FORMAT, view.name, view.key, values, len(moments), flags, highs, lows, tables, sketched,
               bucketed, retention, stair_retention, table_retention, view.known_from_ms)  # fmt: skip
    digest = int.from_bytes(hashlib.sha256(repr(content).encode()).digest()[:6], "little")
    return Layout(
        view.name, view.key, values, len(moments), flags, highs, lows, tables, sketched, bucketed, retention,
        stair_retention, table_retention, np.array(rows, dtype=np.int64).reshape(-1, 4),
        tuple([each.name for each in view.aggregates]), view.ttl_ms, view.known_from_ms, digest,
    )  # fmt: skip


def _columns(view: StreamView, functions: Collection[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([each.column for each in view.aggregates if each.function in functions]))


def _longest(view: StreamView, functions: Collection[str], column: str) -> int:
    windows = [
        each.window_ms for each in view.aggregates if each.function in functions and each.column == column
    ]
    return max(windows) + LATENESS_MS
