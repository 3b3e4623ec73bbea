"""What one entity's last-seen tables say at the time of one read, in plain Python.

`fraud.windows` computes the same for many rows at once.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping
from math import nan
from typing import Final

from fraud.entities import ENTITIES, TRACKED_FIELDS, WINDOWS
from fraud.feature_list import MOMENT_AT
from fraud.last_seen import ENTRY_BYTES, KEY_BYTES, NEVER, SPAN_MS
from fraud.state_layout import DISTINCT_LIMIT, TABLE_BITS, TABLE_MASK, TABLES_SHIFT
from fraud.windows import NOVELTY

_NAMES: Final = tuple(TRACKED_FIELDS)
#: Per entity: which key each table is asked for, how far back its novelty looks, and whether it is counted.
_TABLES: Final = tuple(
    tuple(
        (_NAMES.index(name), NOVELTY[place][index], index < len(entity.counterparties))
        for index, name in enumerate(entity.tracked)
    )
    for place, entity in enumerate(ENTITIES)
)
#: The windows that count distinct counterparties, as lengths << 16.
_LENGTHS: Final = tuple(WINDOWS[window].milliseconds << 16 for window in MOMENT_AT)
_HASHES: Final = tuple(f"{name}_hash" for name in _NAMES)
_WORDS: Final = struct.Struct(f"<{len(_NAMES)}q").pack
#: The bytes of each hash that tables keep.
_KEPT: Final = tuple(slice(8 * index + 8 - KEY_BYTES, 8 * index + 8) for index in range(len(_NAMES)))


def asked_keys(request: Mapping[str, int]) -> list[bytes]:
    """The keys whose novelty a request asks for, in `TRACKED_FIELDS` order; empty where it does not."""
    hashes = [request[name] for name in _HASHES]
    packed = _WORDS(*hashes)
    return [packed[kept] if value else b"" for value, kept in zip(hashes, _KEPT, strict=True)]


def read_tables(
    row: list[float], state: bytes, words: memoryview, kind: int, place: int, asked: list[bytes], at: int
) -> list[float]:
    """Append the distinct counts of all tables to `row`; return the novelty of the `asked_keys`.

    The tables are the last `words` (64-bit) of the packed `state`, which has the header word `kind`
    and is of the entity at `place`; `at` is the read's time in milliseconds.
    """
    # A use's word holds its time in the high bits, and a table is in order of time: so a word is
    # below any time << 16 that it is before.
    now = at << 16
    everything = words[1::2].tolist()
    new: list[float] = []
    begin = 0
    sizes = kind >> TABLES_SHIFT
    first = len(state) - ENTRY_BYTES * len(everything)
    for which, novelty, counted in _TABLES[place]:
        end = begin + (sizes & TABLE_MASK)
        sizes >>= TABLE_BITS
        uses = ordered = everything[begin:end]
        if uses and uses[-1] >= now:
            uses = _before(words[2 * begin : 2 * end].tolist(), at)
            ordered = sorted([use for use in uses if use < now])
        if counted:
            for length in _LENGTHS:
                distinct = len(ordered) - bisect_left(ordered, now - length)
                row.append(distinct if distinct < DISTINCT_LIMIT else DISTINCT_LIMIT)
        last = first + ENTRY_BYTES * (end - begin)
        key = asked[which]
        if key:
            novel = 1.0
            found = state.find(key, first, last)
            while found >= 0:
                number, beside = divmod(found - first, ENTRY_BYTES)
                if not beside:
                    if 0 < at - (uses[number] >> 16) <= novelty:
                        novel = 0.0
                    break
                found = state.find(key, found + 1, last)  # the same bytes by chance, across two values
            new.append(novel)
        else:
            new.append(nan)
        begin, first = end, last
    return new


def _before(entries: list[int], at: int) -> list[int]:
    """Last uses << 16 of entries in two words each; the one before where the last is not before `at`."""
    uses = []
    for key, use in zip(entries[::2], entries[1::2], strict=True):
        last = use >> 16
        if last >= at:
            apart = last - ((key >> 48 & 0xFFFF) | (use & 0xFFFF) << 16) & SPAN_MS - 1
            last = last - apart if apart else NEVER
        uses.append(last << 16)
    return uses
