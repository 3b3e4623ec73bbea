"""What every reader of files gives: rows with their numbers, and lines that are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from datasets.fields import MappingError

BATCH_ROWS: Final = 131_072

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of a text file that is no row; `row` counts data rows from 1."""

    row: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Some rows of a file; `rows` are their numbers, counted from 1 after any header."""

    file: str
    rows: Ints
    batch: pa.RecordBatch
    bad_lines: list[BadLine] = field(default_factory=list)


def require(path: Path, present: list[str], needed: set[str]) -> None:
    """Raise MappingError unless every column of `needed` is there, once."""
    missing = sorted(needed - set(present))
    if missing:
        near = {name: _near(name, present) for name in missing}
        hints = "; ".join(f"{name}: did you mean {found!r}?" for name, found in near.items() if found)
        said = (
            f"{path.name} lacks the columns {', '.join(missing)} of the mapping; it has {', '.join(present)}"
        )
        raise MappingError(said + (f" ({hints})" if hints else ""))
    twice = sorted(name for name in needed if present.count(name) > 1)
    if twice:
        raise MappingError(
            f"{path.name} has {present.count(twice[0])} columns called {twice[0]!r}: rename them, or say "
            f"source: duplicates: number, which calls the second one '{twice[0]}.1'"
        )


def _near(name: str, present: list[str]) -> str | None:
    folded = {each.strip().casefold(): each for each in present}
    found = get_close_matches(name.strip().casefold(), folded, n=1, cutoff=0.8)
    return folded[found[0]] if found else None
