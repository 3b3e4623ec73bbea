"""Counting many different values of a window in bounded bytes: the loops that numba compiles.

A value falls into one of `CELLS` cells by its hash: one of `REGISTERS` registers, and a row that half of all
values reach, the next one a quarter, and so on (probabilistic counting, Flajolet and Martin 1985). A cell
remembers when it was last hit, so one sketch serves every window: the cells hit since the window began are
the bitmap that a sketch of the window alone would have (a time-stamp vector, Kim and O'Hallaron 2003). How
many values hit them is the maximum-likelihood estimate under a Poisson model, whose standard error is
``sqrt(0.4214 / REGISTERS)`` = 2.3 % of any number of values from some thousands on, and less below.

Times are kept by group, in one byte a cell: neighbours in time share the time of the newest of them.
"""

from __future__ import annotations

from math import exp, expm1, log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud.declared.sketch_size import ALL_CELLS, CELLS, MOST_GROUPS, REGISTERS, ROWS
from machine.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

KEY_MASK: Final = (1 << 48) - 1
_LOW: Final = 0xFFFFFFFF
_MIX_1: Final = 0x2545F4914F6CDD1D
_MIX_2: Final = 0x369DEA0F31A53F85
#: Estimates lie between these, as logarithms.
_LEAST, _MOST = 0.0, log(1e9)
_HALVINGS: Final = 22


@compiled
def cell_of(key: int) -> int:
    """The cell of a value, from the 48 bits of its hash that tables keep."""
    mixed = key * _MIX_1
    mixed ^= (mixed >> 32) & _LOW
    mixed *= _MIX_2
    mixed ^= (mixed >> 29) & 0x7FFFFFFFF
    register = (mixed >> 32 & _LOW) * REGISTERS >> 32
    row = 0
    while row < ROWS - 1 and not mixed >> row & 1:
        row += 1
    return int(row * REGISTERS + register)


@compiled
def unpacked_cells(words: Ints, begin: int, groups: int) -> Bytes:
    """The group of every cell of the packed sketch at `words[begin]`."""
    listed = words[begin]
    first = begin + 1 + groups
    if listed == ALL_CELLS:
        return words[first : first + CELLS // 8].view(np.uint8)
    cells = np.zeros(CELLS, dtype=np.uint8)
    for number in range(listed):
        entry = words[first + number // 2] >> 32 * (number % 2) & _LOW
        cells[(entry >> 8) % CELLS] = entry & 0xFF
    return cells


@compiled
def sketch_words(words: Ints, begin: int, groups: int) -> int:
    """How many words the packed sketch at `words[begin]` has, 0 without groups."""
    if groups == 0:
        return 0
    listed = words[begin]
    return int(1 + groups + (CELLS // 8 if listed == ALL_CELLS else (max(listed, 0) + 1) // 2))


@compiled
def distinct_within(
    words: Ints, table: int, entries: int, begin: int, groups: int, at: int, window: int
) -> float:  # fmt: skip
    """About how many different values the window ``[at - window, at)`` has: those of the sketch at
    `words[begin]` and of the `entries` of the table at `words[table]`."""
    cells = unpacked_cells(words, begin, groups)
    weights = np.zeros(MOST_GROUPS + 1)
    edge = at - window
    for group in range(groups):
        newest = words[begin + 1 + group]
        if newest >= at:
            break
        if newest >= edge:
            weights[group + 1] = 1.0
            if group and words[begin + group] < edge:  # part of the group lies before the window
                before = words[begin + group]
                weights[group + 1] = (newest - edge + 1) / (newest - before)
    hit = np.zeros(ROWS)
    for row in range(ROWS):
        for register in range(REGISTERS):
            hit[row] += weights[cells[row * REGISTERS + register]]
    taken = np.empty(entries, dtype=np.int64)
    found = 0
    for entry in range(entries):
        age = at - (words[table + 2 * entry + 1] >> 16)
        if not 0 < age <= window:
            continue
        cell = cell_of(words[table + 2 * entry] & KEY_MASK)
        known = False
        for other in range(found):
            known = known or taken[other] == cell
        if not known:
            taken[found] = cell
            found += 1
            hit[cell // REGISTERS] += 1.0 - weights[cells[cell]]
    return estimate(hit)


@compiled
def estimate(hit: Floats) -> float:
    """How many different values hit so many cells of each row, most likely."""
    most = 0.0
    for row in range(ROWS):
        most += hit[row]
    if most == 0.0:
        return 0.0
    low, high = _LEAST, _MOST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(hit, exp(middle) / REGISTERS) > 0:
            low = middle
        else:
            high = middle
    return exp((low + high) / 2)


@compiled
def _slope(hit: Floats, load: float) -> float:
    """How the log-likelihood of `load` values a register grows with its logarithm."""
    slope = 0.0
    share = 0.5
    for row in range(ROWS):
        rate = load * share
        if row < ROWS - 2:
            share /= 2  # the last row takes what the one before does
        slope -= (REGISTERS - hit[row]) * rate
        if hit[row] > 0 and rate < 500:
            slope += hit[row] * rate / expm1(rate)
    return slope


@compiled
def joined_groups(counts: Ints, most: int) -> Ints:
    """For every group its number (from 1) once neighbours have become at most `most` groups of about as many
    cells; `counts` are cells by group, and a group without any joins the next."""
    low, high = 0, int(counts.sum()) + 1
    numbers = np.zeros(len(counts), dtype=np.int64)
    while high - low > 1:
        limit = (low + high) // 2
        if _pack_groups(counts, limit, numbers) <= most:
            high = limit
        else:
            low = limit
    _pack_groups(counts, high, numbers)
    return numbers


@compiled
def _pack_groups(counts: Ints, limit: int, numbers: Ints) -> int:
    number, held = 1, 0
    for group in range(len(counts)):
        if held and held + counts[group] > limit:
            number += 1
            held = 0
        held += counts[group]
        numbers[group] = number
    return number
