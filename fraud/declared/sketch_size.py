"""How large a sketch is, packed and in memory: for those who reserve room and compile nothing."""

from __future__ import annotations

from typing import Final

REGISTERS: Final = 768
#: The last row takes all values beyond it: a million values hit an eighth of it, ten million three quarters.
ROWS: Final = 14
CELLS: Final = REGISTERS * ROWS
#: A cell says its group, from 1 on, in one byte.
MOST_GROUPS: Final = 255
#: In a packed sketch, in place of how many cells are listed: all stand there, a byte each.
ALL_CELLS: Final = -1
#: A listed cell is four bytes: its number, and its group in the lowest byte.
LISTED_BYTES: Final = 4
MOST_BYTES: Final = 8 * (1 + MOST_GROUPS) + CELLS
