"""Where a change sits: the score and the alerts within segments, and how fresh each view was."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from fraud.contract.fields import CHANNELS
from monitoring.drift.measures import ColumnDrift, evidently_distance, sample

#: Features that are codes of a segment.
SEGMENTS: Final = {
    "txn_channel": "channel",
    "txn_country": "country",
    "txn_category": "category",
    "txn_hour": "hour",
}
#: Columns of the log that spell out what a feature holds as a code.
TEXTS: Final = {"txn_category": "merchant_category"}
MOST_OF_EACH: Final = 6
FEWEST_ROWS: Final = 500
#: Share of reads that may be stale or timed out before a view counts as not fresh.
STALE_LIMIT: Final = 0.05


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: how its score moved (in deviations of the reference) and its alerts."""

    name: str
    rows: int
    moved: float
    score: tuple[float, float]
    alerts: tuple[float, float] | None


def segments(reference: pd.DataFrame, current: pd.DataFrame) -> list[Segment]:
    """The largest segments of each kind that both sides hold, those that moved most first."""
    r, c = sample(reference), sample(current)
    if "score" not in r or "score" not in c:
        return []
    found = []
    for column, kind in SEGMENTS.items():
        if column not in r or column not in c:
            continue
        then, now = _values(column, r[column]), _values(column, c[column])
        for value in now.value_counts().index[:MOST_OF_EACH]:
            left, right = r[then == value], c[now == value]
            if min(len(left), len(right)) < FEWEST_ROWS:
                continue
            both = "decision" in r and "decision" in c
            alerts = (
                tuple(float((side["decision"] != "APPROVE").mean()) for side in (left, right))
                if both
                else None
            )
            found.append(
                Segment(
                    f"{kind} {_spelled(column, right) or _name(column, value)}", len(right),
                    evidently_distance("wasserstein", left["score"].dropna(), right["score"].dropna()),
                    (float(left["score"].mean()), float(right["score"].mean())),
                    (alerts[0], alerts[1]) if alerts else None,
                )
            )  # fmt: skip
    return sorted(found, key=lambda segment: -segment.moved)


def _values(column: str, values: pd.Series) -> pd.Series:
    return np.floor(values / 6) if column == "txn_hour" else values


def _spelled(column: str, rows: pd.DataFrame) -> str | None:
    """What the log calls the value that a feature holds as a code, if it says."""
    text = TEXTS.get(column)
    known = rows[text].dropna() if text in rows else None
    return str(known.mode().iloc[0]) if known is not None and len(known) else None


def _name(column: str, value: float) -> str:
    code = int(value)
    if column == "txn_hour":
        return f"{6 * code:02d}-{6 * code + 6:02d} UTC"
    if column == "txn_channel" and 0 <= code < len(CHANNELS):
        return CHANNELS[code]
    if code < 0:
        return "not given"
    if column == "txn_country" and code < 26 * 26:
        return chr(65 + code // 26) + chr(65 + code % 26)
    return str(code)


def freshness(current: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Share of rows by what was found, for each feature view; empty without the log's column."""
    if "feature_status" not in current:
        return {}
    counts: dict[str, Counter[str]] = {}
    rows = sample(current, 50_000)["feature_status"]
    for status in rows:
        for view, found in _pairs(status):
            counts.setdefault(view, Counter())[found] += 1
    return {
        view: {found: number / sum(found_of.values()) for found, number in found_of.items()}
        for view, found_of in sorted(counts.items())
    }


def _pairs(status: Any) -> list[tuple[str, str]]:
    if status is None or isinstance(status, float):
        return []
    return list(status.items()) if isinstance(status, dict) else [(str(k), str(v)) for k, v in status]


def stale_views(shares: dict[str, dict[str, float]]) -> list[ColumnDrift]:
    """Views that were stale or timed out too often, as drifted columns."""
    found = []
    for view, by in shares.items():
        late = by.get("stale", 0.0) + by.get("timeout", 0.0)
        if late >= STALE_LIMIT:
            found.append(
                ColumnDrift(
                    view,
                    "view",
                    {"missing": late},
                    {"missing": STALE_LIMIT},
                    current_missing=late,
                    passed=("missing",),
                )
            )
    return found
