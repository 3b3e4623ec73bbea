"""The weekly drift report: current decisions against the model's own training reference.

    python -m monitoring.drift [--week 2018-W34] [--reference <model folder>] [--current <decision log>] \\
        [--out results/drift/2018-W34] [--exit-code]

Writes ``drift.html`` (words first, then Evidently's plots; one file under 5 MB), ``drift.json``,
``drift.md`` and ``drift.prom``. With ``--exit-code`` the exit code is the verdict: 0 nothing or watch,
3 recalibrate, 4 retrain. Input that cannot be used gives 2 always.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from monitoring.drift import evidently_report
from monitoring.drift import page as drift_page
from monitoring.drift.attribution import AttributionDrift, attribution_drift
from monitoring.drift.measures import ColumnDrift, measure, measure_column, sample
from monitoring.drift.performance import (
    Baseline,
    Money,
    Performance,
    PerformanceSignal,
    compare,
    money_of,
    performance,
)
from monitoring.drift.segments import Segment, freshness, segments, stale_views
from monitoring.drift.strangers import FirstTransactions, first_transactions
from monitoring.drift.thresholds import Thresholds
from monitoring.drift.verdict import Costs, Since, Verdict, judge
from monitoring.page import write
from stores.decisions import NOT_FEATURES

#: Features of the calendar: a week that is not whole differs in them by itself.
CALENDAR: Final = re.compile(r"(^|_)(hour|weekday|weekend|night|day_of_week|time_of_day|dow|calendar)(_|$)")
WHOLE_WEEK_DAYS: Final = 6.5
#: Decisions a day below which a day says nothing by itself.
FEWEST_A_DAY: Final = 500
MOST_DATED: Final = 25
#: Columns of the log that are compared as categories when the reference has them too.
SEGMENTS: Final = ("channel", "merchant_category", "country", "currency")
EXIT_CODES: Final = {"nothing": 0, "watch": 0, "recalibrate": 3, "retrain": 4}


class DriftInputError(ValueError):
    """Data that cannot be compared; the text says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class DriftResult:
    """A finished report. `drifted_features` names model inputs; `report` is the page."""

    week: str
    report: Path
    json: Path
    verdict: Verdict
    drifted_features: list[str]
    drifted_outputs: list[str]
    columns: list[ColumnDrift]
    performance: list[PerformanceSignal]
    matured: Performance | None
    since: dict[str, Since]
    rows: tuple[int, int]
    left_out: list[str] = field(default_factory=list)
    money: Money | None = None
    segments: list[Segment] = field(default_factory=list)
    freshness: dict[str, dict[str, float]] = field(default_factory=dict)
    attribution: AttributionDrift | None = None
    strangers: list[FirstTransactions] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict.action]


def drift_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    out: Path,
    *,
    week: str = "latest",
    features: Sequence[str] | None = None,
    labelled: pd.DataFrame | None = None,
    baseline: Baseline | None = None,
    thresholds: Thresholds | None = None,
    decide_at: tuple[float, float] | None = None,
    importance: Mapping[str, float] | None = None,
    costs: Costs | None = None,
    model: Path | None = None,
    evidently: bool = True,
    workspace: Path | None = None,
) -> DriftResult:
    """Compare `current` decisions with the model's `reference` and write the report to `out`.

    Both hold the feature columns and `score`; `current` also `event_timestamp` (UTC) and, from the
    decision log, `decision`. `labelled` holds matured decisions with `is_fraud` (0 or 1), from
    whatever period has matured; they are held against `baseline` (statistics of earlier matured
    weeks) or, without one, against the reference's own labels. `decide_at` are the model's
    REVIEW and BLOCK thresholds, with which the reference's decision mix is known.
    `importance` weighs features (any scale). `model` is the model's LightGBM text, with which the
    shares of its reasons are compared; it reads `features` in that order. With `workspace`, the plots
    are kept in Evidently's workspace in that folder too. Raises `DriftInputError`.
    """
    thresholds = thresholds or Thresholds()
    importance = dict(importance or {})
    names = list(features) if features is not None else feature_names(reference, current)
    _check(reference, current, names)
    reference, current = with_decisions(reference, decide_at), current.copy(deep=False)
    days = _days(current)
    covered = _covered_days(current)
    left_out = [name for name in names if CALENDAR.search(name)] if covered < WHOLE_WEEK_DAYS else []
    kept = [name for name in names if name not in left_out]
    outputs = [name for name in ("score", "decision") if name in reference and name in current]
    by_text = [name for name in SEGMENTS if name in reference and name in current and name not in kept]
    columns = measure(reference, current, [*kept, *outputs, *by_text], thresholds)
    fresh = freshness(current)
    columns = [*stale_views(fresh), *columns]
    drifted = [column for column in columns if column.drifted]
    since = {
        column.column: found
        for column in drifted[:MOST_DATED]
        if column.column in current
        and (found := first_day(reference, current, column, days, thresholds)) is not None
    }
    matured = performance(labelled) if labelled is not None and len(labelled) else None
    if baseline is None and matured is not None and "is_fraud" in reference:
        settled = performance(sample(reference[reference["is_fraud"].notna()]), replicates=20)
        baseline = {name: estimate.value for name, estimate in settled.statistics.items()}
    signals = compare(matured, baseline) if matured is not None and baseline else []
    money = money_of(labelled) if labelled is not None else None
    verdict = judge(
        columns, signals, since, importance=importance, quiet_weeks=thresholds.weeks,
        alerts_per_day=_alerts(reference, current, covered), prevented=money.text() if money else None, costs=costs or Costs(),
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    result = DriftResult(
        week=week, report=out / "drift.html", json=out / "drift.json", verdict=verdict,
        drifted_features=[c.column for c in drifted if c.column in set(kept)],
        drifted_outputs=[c.column for c in drifted if c.column not in set(kept)],
        columns=columns, performance=signals, matured=matured, since=since,
        rows=(len(reference), len(current)), left_out=left_out, money=money, segments=segments(reference, current), freshness=fresh,
        attribution=attribution_drift(model, names, reference, current) if model else None,
        strangers=first_transactions(reference, current),
    )  # fmt: skip
    first_page = drift_page.first_page(result, reference, current, days, thresholds)
    results: dict[str, Any] = {}
    title = f"Drift report {week}"
    if evidently:
        last = pd.to_datetime(current["event_timestamp"], utc=True).max().to_pydatetime(warn=False)
        run = evidently_report.run(reference, current, columns, always=outputs, week=week, at=last)
        results = run.results
        if workspace is not None:
            evidently_report.keep(run, workspace)
        page = evidently_report.with_first_page(run.html, drift_page.embedded(first_page), title)
    else:
        page = drift_page.alone(first_page, title)
    write(result.report, page)
    write(result.json, drift_page.to_json(result, results))
    write(out / "drift.md", drift_page.to_markdown(result))
    write(out / "drift.prom", drift_page.to_prometheus(result))
    return result


def feature_names(reference: pd.DataFrame, current: pd.DataFrame) -> list[str]:
    """Numeric columns that both sides share and that are neither output, label nor log columns."""
    return [
        str(name) for name in reference.columns
        if name in current and name not in NOT_FEATURES and pd.api.types.is_numeric_dtype(reference[name])
    ]  # fmt: skip


def first_day(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    column: ColumnDrift,
    days: pd.Series,
    thresholds: Thresholds,
) -> Since | None:
    """The first day from which `column` stayed beyond the limit it passed, or None if none stands out."""
    beyond: list[tuple[str, bool]] = []
    small = sample(reference, 20_000)[column.column]
    lead = max(column.passed, key=lambda name: column.values[name] / column.limits[name])
    for day, rows in current.groupby(days, sort=True):
        if len(rows) < FEWEST_A_DAY:
            continue
        found = measure_column(column.column, small, sample(rows, 20_000)[column.column], thresholds)
        beyond.append((str(day), found.values.get(lead, 0.0) >= column.limits[lead]))
    count = sum(flag for _, flag in beyond)
    if not count:
        return None
    last_quiet = max((place for place, (_, flag) in enumerate(beyond) if not flag), default=-1)
    start = last_quiet + 1
    if start >= len(beyond):  # it came back inside on the last day: name the first day beyond
        start = next(place for place, (_, flag) in enumerate(beyond) if flag)
    return Since(day=beyond[start][0], days_beyond=count, days=len(beyond))


def _check(reference: pd.DataFrame, current: pd.DataFrame, names: Sequence[str]) -> None:
    if not len(reference) or not len(current):
        side = "reference" if not len(reference) else "current data"
        raise DriftInputError(f"the {side} holds no row: there is nothing to compare")
    absent = [name for name in names if name not in reference or name not in current]
    if absent:
        raise DriftInputError(
            f"{len(absent)} of {len(names)} features are not on both sides, first {absent[0]}: "
            "the reference and the decisions must come from the same feature service"
        )
    if not names:
        raise DriftInputError("no feature column is shared by the reference and the current data")
    if "event_timestamp" not in current:
        raise DriftInputError("the current data has no event_timestamp column")


def _days(current: pd.DataFrame) -> pd.Series:
    return pd.to_datetime(current["event_timestamp"], utc=True).dt.strftime("%Y-%m-%d")


def _covered_days(frame: pd.DataFrame) -> float:
    times = pd.to_datetime(frame["event_timestamp"], utc=True)
    return max(float((times.max() - times.min()).total_seconds()) / 86_400, 1 / 24)


def with_decisions(reference: pd.DataFrame, decide_at: tuple[float, float] | None) -> pd.DataFrame:
    """`reference` with the decision that each score would have met, if the thresholds are known."""
    if decide_at is None or "decision" in reference or "score" not in reference:
        return reference
    review, block = decide_at
    score = reference["score"].to_numpy(np.float64)
    mix = np.where(score >= block, "BLOCK", np.where(score >= review, "REVIEW", "APPROVE"))
    return reference.assign(decision=mix)


def _alerts(reference: pd.DataFrame, current: pd.DataFrame, covered: float) -> tuple[float, float] | None:
    """Alerts a day as they would be at the reference's rate, and as they are."""
    if "decision" not in reference or "decision" not in current:
        return None
    daily = len(current) / max(covered, 1.0)
    return (
        float((reference["decision"] != "APPROVE").mean()) * daily,
        float((current["decision"] != "APPROVE").mean()) * daily,
    )
