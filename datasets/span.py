"""Where a dataset's data are: a lonely row of another year is no part of a history."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.folder import transaction_files

#: Days without any data that part one stretch of a history from another.
_GAP: Final = timedelta(days=30)
#: A stretch with no more than this share of the rows does not belong to the history.
_STRAY: Final = 0.02


class Span(NamedTuple):
    """First and last event time (UTC) of where the data are, and how many rows lie elsewhere."""

    start: datetime
    end: datetime
    strays: int


def main_span(dataset: Path) -> Span | None:
    """Where the data of `dataset` are; None if there are none.

    Days are parted into stretches by gaps of a month. The largest stretch is the history, with every other
    one that holds more than a fiftieth of all rows, and what lies between them.
    """
    files = transaction_files(dataset)
    rows = {date.fromisoformat(path.stem): pq.read_metadata(path).num_rows for path in files}
    if not rows:
        return None
    stretches: list[list[date]] = []
    for day in sorted(rows):
        if stretches and day - stretches[-1][-1] <= _GAP:
            stretches[-1].append(day)
        else:
            stretches.append([day])
    sizes = [sum(rows[day] for day in stretch) for stretch in stretches]
    least = max(1, _STRAY * sum(sizes))
    kept = [
        stretch for stretch, size in zip(stretches, sizes, strict=True) if size > least or size == max(sizes)
    ]
    first, last = kept[0][0], kept[-1][-1]
    inside = sum(size for day, size in rows.items() if first <= day <= last)
    folder = files[0].parent
    return Span(_edge(folder, first)[0], _edge(folder, last)[1], sum(sizes) - inside)


def _edge(folder: Path, day: date) -> tuple[datetime, datetime]:
    times = pq.read_table(folder / f"{day}.parquet", columns=["event_timestamp"]).column("event_timestamp")
    found = pc.min_max(times).as_py()
    return found["min"].astimezone(UTC), found["max"].astimezone(UTC)
