"""Short forms for the figures that views declare: Feast's `Aggregation`, with its meaning beside it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from feast.aggregation import Aggregation

from fraud.declared.figures import Figure

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_WINDOW: Final = re.compile(r"(\d+)([mhd])")
#: Between the columns of an aggregation that looks at several.
BETWEEN: Final = ","


@dataclass(frozen=True, slots=True)
class Word:
    """One declared feature: the aggregation, what it means, whether the service lists it, and the file and
    line it stands in."""

    aggregation: Aggregation
    meaning: str
    served: bool = True
    where: str = ""

    @property
    def name(self) -> str:
        return str(self.aggregation.name)


def span(window: str) -> timedelta:
    """The length of a window such as `5m`, `1h` or `30d`; ValueError for anything else."""
    found = _WINDOW.fullmatch(window)
    if found is None:
        raise ValueError(f"{window} is no window: write 5m, 1h or 30d")
    return timedelta(**{_UNITS[found.group(2)]: int(found.group(1))})


def figure(
    name: str, function: str, *columns: str, over: str = "", meaning: str = "", served: bool = True
) -> Word:
    """The feature `name`: `function` of `columns` over the window `over`."""
    window = span(over) if over else None
    aggregation = Aggregation(
        column=BETWEEN.join(columns), function=function, time_window=window, name=name.format(w=over)
    )
    frame: Any = sys._getframe(1)
    while frame.f_code.co_filename == __file__ or frame.f_code.co_name == "<listcomp>":
        frame = frame.f_back
    where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    return Word(aggregation, meaning.format(w=over), served, where)


def each(windows: str, name: str, function: str, *columns: str, meaning: str = "") -> list[Word]:
    """The same figure over several windows, such as `1h 24h`; `{w}` in name and meaning is the window."""
    return [figure(name, function, *columns, over=w, meaning=meaning) for w in windows.split()]


def figures_of(aggregations: Sequence[Aggregation], meanings: dict[str, str]) -> tuple[Figure, ...]:
    """Feast's aggregations as the platform computes them."""
    return tuple(
        [
            Figure(
                str(one.name),
                str(one.function),
                tuple([name for name in (one.column or "").split(BETWEEN) if name]),
                round(one.time_window.total_seconds() * 1000) if one.time_window else 0,
                meanings.get(str(one.name), ""),
            )
            for one in aggregations
        ]
    )
