"""When a distance counts as drift: defaults, and limits calibrated on quiet history.

A column that wanders by itself from week to week needs a wider limit than one that never moves.
`calibrate` takes what the measures were between the reference and weeks that are known to be
quiet; the limit of a column is the largest of those times a margin, within bounds, so that a
quiet week stays quiet and a steady column is watched closely.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: Limits of a column that was never calibrated.
DEFAULT_LIMITS: Final[dict[str, float]] = {
    "wasserstein": 0.1,
    "psi": 0.1,
    "js": 0.1,
    "missing": 0.05,
    "unseen": 0.002,
}
#: However quiet a column was, nothing smaller than this counts: it would not matter.
SMALLEST_LIMITS: Final[dict[str, float]] = {
    "wasserstein": 0.03,
    "psi": 0.02,
    "js": 0.03,
    "missing": 0.01,
    "unseen": 0.0005,
}
#: However restless it was, a limit above this would be blind.
LARGEST_LIMITS: Final[dict[str, float]] = {
    "wasserstein": 0.5,
    "psi": 0.5,
    "js": 0.4,
    "missing": 0.25,
    "unseen": 0.05,
}
#: A limit is this many times the largest value seen in a quiet week.
MARGIN: Final = 1.5
#: Fewer quiet weeks than this say too little to narrow a limit, only to widen one.
FEWEST_WEEKS: Final = 3


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limit of each measure, by default and by column, and how many weeks it rests on."""

    default: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_LIMITS))
    columns: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    weeks: int = 0

    def limit(self, column: str, measure: str) -> float:
        """The limit of `measure` for `column`."""
        return self.columns.get(column, {}).get(measure, self.default[measure])

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"weeks": self.weeks, "default": dict(self.default), "columns": self.columns}
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> Thresholds:
        """Read what `save` wrote."""
        content = json.loads(path.read_text())
        return cls(default=content["default"], columns=content["columns"], weeks=content["weeks"])


def calibrate(weeks: Iterable[Mapping[str, Mapping[str, float]]]) -> Thresholds:
    """Limits from quiet weeks, each given as column -> measure -> value against the reference."""
    worst: dict[str, dict[str, float]] = {}
    count = 0
    for week in weeks:
        count += 1
        for column, values in week.items():
            seen = worst.setdefault(column, {})
            for measure, value in values.items():
                seen[measure] = max(seen.get(measure, 0.0), value)
    limits: dict[str, dict[str, float]] = {}
    for column, values in worst.items():
        limits[column] = {}
        for measure, value in values.items():
            smallest = SMALLEST_LIMITS[measure] if count >= FEWEST_WEEKS else DEFAULT_LIMITS[measure]
            limits[column][measure] = round(min(max(value * MARGIN, smallest), LARGEST_LIMITS[measure]), 6)
    return Thresholds(columns=limits, weeks=count)
