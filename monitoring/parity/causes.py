"""Why a served vector differs from its rebuild: what serving said itself, or what it had seen.

A rebuild has counted everything that was known before the transaction. Serving had counted what the
state said that it read (by its version), and the recent payments that it laid over it (the log's
`overlaid`). Where something is missing, serving was faster than the stream; where something was laid
over a state that never arrived, it was refused in the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

_TIMES: Final = {"event_timestamp", "created_timestamp"}
_SPOKEN: Final = ("timeout", "stale", "missing")
_NEVER: Final = -(1 << 62)
#: Workers decide, and append to the event log, within so many microseconds of each other.
_DISORDER_US: Final = 1_000_000
Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class _Arrivals:
    """An entity's payments in the order in which they were known (microseconds), and the version of its
    state once each is counted: the later of event time and the version before, plus a microsecond."""

    known: Numbers
    version: Numbers


_NOBODY: Final = _Arrivals(np.empty(0, np.int64), np.empty(0, np.int64))


def causes_of(
    served: pa.Table,
    arrivals: pa.Table,
    mismatch: np.ndarray[Any, np.dtype[np.bool_]],
    different: np.ndarray[Any, np.dtype[np.bool_]],
    features: Sequence[str],
    views: Mapping[str, Sequence[str]],
) -> list[str]:
    """The cause of each row that `mismatch` marks, in their order.

    `different` is by feature and row; `arrivals` are all decisions of the time, which may be more than
    `served`. What serving said of a view comes first, then what it had seen.
    """
    rows = np.flatnonzero(mismatch)
    if not len(rows):
        return []
    picked = served.take(pa.array(rows))
    columns = set(served.column_names)
    seen = _Seen(picked, arrivals) if columns >= _TIMES else None

    def column(name: str) -> list[Any]:
        return picked[name].to_pylist() if name in columns else [None] * len(rows)

    causes = []
    logged = zip(column("feature_status"), column("view_timestamps"), column("overlaid"), strict=True)
    for place, (row, (statuses, stamps, overlaid)) in enumerate(zip(rows, logged, strict=True)):
        touched = {
            view for at in np.flatnonzero(different[:, row]) for view in views.get(features[int(at)], ())
        }
        status = dict(statuses or ())
        said = {status.get(view) for view in touched}
        spoken = next((cause for cause in _SPOKEN if cause in said), None)
        if spoken is None and seen is not None:
            spoken = seen.cause(place, touched, dict(stamps or ()), overlaid or ())
        causes.append(spoken or "unexplained")
    return causes


class _Seen:
    """What serving had seen of the entities of some rows."""

    def __init__(self, rows: pa.Table, arrivals: pa.Table) -> None:
        from fraud.features.entities import ENTITIES, ENTITY_BY_NAME, PERSONAL

        self._overlaid = {ENTITY_BY_NAME[name].velocity_view for name in PERSONAL}
        self._known = _epoch_us(rows["created_timestamp"])
        self._everything = set(_epoch_us(arrivals["created_timestamp"]).tolist())
        self._of: dict[str, list[_Arrivals]] = {}
        for entity in ENTITIES:
            if entity.key in rows.column_names and entity.key in arrivals.column_names:
                keys = rows[entity.key].to_pylist()
                groups = _by_key(arrivals, entity.key, set(keys))
                self._of[entity.velocity_view] = [groups.get(key, _NOBODY) for key in keys]

    def cause(
        self, row: int, views: set[str], stamps: Mapping[str, datetime], overlaid: Sequence[datetime]
    ) -> str | None:
        """`late`, `withdrawn`, or None if all of `views` had seen what was known before the row."""
        laid = {_microseconds(moment) for moment in overlaid}
        for view in views & set(self._of):
            arrivals = self._of[view][row]
            stamp = _microseconds(stamps[view]) if view in stamps else _NEVER
            seen = int(np.searchsorted(arrivals.version, stamp, side="right"))
            before = int(np.searchsorted(arrivals.known, self._known[row]))
            if view in self._overlaid:
                if not laid.issuperset(arrivals.known[seen:before].tolist()):
                    return "late"
            elif seen < before or _may_be_out_of_order(arrivals.known[:before]):
                return "late"
        return "withdrawn" if laid - self._everything else None


def _may_be_out_of_order(known: Numbers) -> bool:
    """Whether the last of these payments may have been appended to the event log, and so counted, before
    one that was known earlier: then a version does not tell which of them it has counted."""
    return len(known) > 1 and bool(known[-1] - known[-2] < _DISORDER_US)


def _by_key(arrivals: pa.Table, name: str, keys: set[Any]) -> dict[Any, _Arrivals]:
    frame = pd.DataFrame(
        {
            "key": arrivals[name].to_pandas(),
            "known": _epoch_us(arrivals["created_timestamp"]),
            "event": _epoch_us(arrivals["event_timestamp"]),
        }
    )
    frame = frame[frame["key"].isin(keys)].sort_values(["key", "known"], kind="stable")
    place = frame.groupby("key").cumcount()
    frame["version"] = (frame["event"] + 1 - place).groupby(frame["key"]).cummax() + place
    return {
        key: _Arrivals(part["known"].to_numpy(), part["version"].to_numpy())
        for key, part in frame.groupby("key")
    }


def _epoch_us(column: pa.ChunkedArray) -> Numbers:
    return np.asarray(column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(), dtype=np.int64)


def _microseconds(moment: datetime) -> int:
    return int(pd.Timestamp(moment).value) // 1000
