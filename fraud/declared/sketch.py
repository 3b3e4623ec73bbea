"""Different values beyond those that a table of last uses holds, in at most `MOST_BYTES` bytes.

What a full table drops goes here with the time of its last use; `fraud.declared.sketch_loops` says how it is
counted. A sketch is bytes of a known order: equal events give equal bytes, and two sketches of one entity
merge to what one sketch of all would hold, but for how times are grouped.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud.declared.sketch_loops import cell_of, joined_groups
from fraud.declared.sketch_size import ALL_CELLS, CELLS, LISTED_BYTES, MOST_GROUPS
from fraud.state.last_seen import NEVER

#: How many groups are left when there were too many.
_FEWER: Final = 192
#: A group takes one cell, and one more for so many that are in use: at most 22.
_CELLS_A_GROUP: Final = 512


class Sketch:
    """The cells of one table's dropped values. Times are event times in UTC milliseconds."""

    __slots__ = ("_filled", "_used", "cells", "times")

    def __init__(self) -> None:
        #: Newest time of each group, oldest first.
        self.times: list[int] = []
        #: By cell, its group from 1 on; 0 where none hit it.
        self.cells = bytearray(CELLS)
        self._used = self._filled = 0

    def __bool__(self) -> bool:
        return bool(self.times)

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    def add(self, key: bytes, time: int, oldest: int) -> None:
        """Note that a value was last used at `time`; groups that ended before `oldest` may be dropped."""
        times, cells = self.times, self.cells
        if not times or time > times[-1]:
            if times and self._filled <= self._used // _CELLS_A_GROUP:
                times[-1] = time
            else:
                if len(times) >= MOST_GROUPS:
                    self._set(np.array(times), np.frombuffer(bytes(cells), dtype=np.uint8), oldest)
                    times, cells = self.times, self.cells
                times.append(time)
                self._filled = 0
            group = len(times)
        else:
            group = bisect_left(times, time) + 1
        cell = cell_of(int.from_bytes(key, "little"))
        was = cells[cell]
        if group > was:
            cells[cell] = group
            self._used += was == 0
            self._filled += group == len(times)

    def merge(self, other: Sketch, oldest: int) -> None:
        """Take in another sketch of the same values: each cell was last hit when the later one was."""
        ours, theirs = (np.array([NEVER, *each.times], dtype=np.int64) for each in (self, other))
        hit = np.maximum(
            ours[np.frombuffer(bytes(self.cells), dtype=np.uint8)],
            theirs[np.frombuffer(bytes(other.cells), dtype=np.uint8)],
        )
        times, groups = np.unique(hit, return_inverse=True)
        if times[0] == NEVER:
            times = times[1:]
        else:
            groups = groups + 1
        self._set(times, groups.reshape(-1), oldest)

    def _set(self, times: NDArray[np.int64], groups: NDArray[np.integer], oldest: int) -> None:
        """Become these cells (their groups, from 1), with as few groups as fit."""
        counts = np.bincount(groups, minlength=len(times) + 1)[1:]
        gone = int(np.searchsorted(times, oldest))
        numbers = np.zeros(len(times) + 1, dtype=np.uint8)
        self.times = []
        if gone < len(times):
            joined = joined_groups(counts[gone:].astype(np.int64), _FEWER)
            numbers[gone + 1 :] = joined
            last = np.flatnonzero(np.diff(joined, append=joined[-1] + 1))
            self.times = times[gone:][last].tolist()
        self.cells = bytearray(numbers[groups].tobytes())
        self._recount()

    def _recount(self) -> None:
        self._used = CELLS - self.cells.count(0)
        self._filled = self.cells.count(len(self.times)) if self.times else 0

    def pack(self) -> bytes:
        """The sketch as whole words, nothing if it is empty; `len(times)` stands elsewhere."""
        if not self.times:
            return b""
        times = array("q", self.times).tobytes()
        if LISTED_BYTES * self._used >= CELLS:
            return array("q", [ALL_CELLS]).tobytes() + times + self.cells
        cells = np.frombuffer(bytes(self.cells), dtype=np.uint8)
        used = np.flatnonzero(cells)
        listed = (used.astype(np.uint32) << 8 | cells[used]).tobytes()
        return array("q", [len(used)]).tobytes() + times + listed + bytes(-len(listed) % 8)

    @classmethod
    def unpack(cls, data: bytes, groups: int) -> Sketch:
        """The sketch of `groups` groups that `data` packs; ValueError for anything else."""
        sketch = cls()
        if groups == 0:
            if data:
                raise ValueError("a sketch without groups has no bytes")
            return sketch
        listed, end = int.from_bytes(data[:8], "little", signed=True), 8 * (1 + groups)
        sketch.times = array("q", data[8:end]).tolist()
        if listed == ALL_CELLS:
            sketch.cells = bytearray(data[end:])
        else:
            entries = np.frombuffer(data, dtype=np.uint32, count=listed, offset=end)
            cells = np.zeros(CELLS, dtype=np.uint8)
            cells[entries >> 8] = (entries & 0xFF).astype(np.uint8)
            sketch.cells = bytearray(cells.tobytes())
        if len(sketch.cells) != CELLS or max(sketch.cells) > groups:
            raise ValueError("cells that are in no group")
        sketch._recount()
        return sketch


def packed_bytes(data: bytes, at: int, groups: int) -> int:
    """How many bytes the packed sketch of `groups` groups at `data[at]` has."""
    if groups == 0:
        return 0
    listed = int.from_bytes(data[at : at + 8], "little", signed=True)
    cells = CELLS if listed == ALL_CELLS else (max(listed, 0) * LISTED_BYTES + 7) // 8 * 8
    return 8 * (1 + groups) + cells
