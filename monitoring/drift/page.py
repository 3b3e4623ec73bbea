"""How a drift result looks: the first page in words, its plots, and the other formats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from monitoring import gauges, page
from monitoring.drift import strangers
from monitoring.drift.measures import MEASURE_MEANING, ColumnDrift, finite, measure_column, sample
from monitoring.drift.performance import ALERTS_A_DAY, TITLES
from monitoring.drift.thresholds import Thresholds
from monitoring.drift.verdict import ACTIONS, performance_phrase

if TYPE_CHECKING:
    from monitoring.drift.report import DriftResult

#: Rows of the table of columns; the rest is in the JSON.
MOST_ROWS = 40


def first_page(
    result: DriftResult,
    reference: pd.DataFrame,
    current: pd.DataFrame,
    days: pd.Series,
    thresholds: Thresholds,
) -> str:
    """The words, the plots of the outputs, and the table of columns, as an HTML fragment."""
    v = result.verdict
    changed = "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in v.changed) + "</ul>"
    times = pd.to_datetime(current["event_timestamp"], utc=True)
    parts = [
        f"<h1>Drift report, {escape(result.week)}</h1>",
        f'<p class="muted">{result.rows[1]:,} decisions, {times.min():%Y-%m-%d %H:%M} to {times.max():%Y-%m-%d %H:%M} UTC, '
        f"against {result.rows[0]:,} rows of the model's training reference</p>",
        page.verdict(v.tone, v.headline, v.todo),
        page.definitions(
            [
                ("What changed", changed),
                ("Since when", escape(v.since)),
                ("How sure", escape(v.sure)),
                ("What it costs", escape(v.costs) or "–"),
            ]
        ),
    ]
    if result.left_out:
        parts.append(
            f"<p><small>Left out, because the period is not a whole week: {escape(', '.join(result.left_out))}.</small></p>"
        )
    parts += ["<h2>Decisions</h2>", _outputs(reference, current)]
    if result.matured is not None:
        parts += ["<h2>Matured transactions</h2>", _performance(result)]
    if result.segments:
        parts += ["<h2>Segments</h2>", _segments(result)]
    if result.strangers:
        parts += ["<h2>Strangers</h2>", strangers.section(result.strangers)]
    if result.freshness:
        parts += ["<h2>Freshness of features</h2>", _freshness(result)]
    if result.attribution is not None:
        parts += ["<h2>What the model leans on</h2>", _attribution(result)]
    parts += ["<h2>Columns</h2>", _columns(result, reference, current, days, thresholds)]
    return "".join(parts)


def embedded(fragment: str) -> str:
    """The fragment with its style, to stand in front of Evidently's plots."""
    after = "<h2>Evidently</h2><p class='muted'>Its plots and tests for the columns that deserve a look, with our limits.</p>"
    return f'<style>{page.STYLE}</style><main class="tollgate">{fragment}{after}</main>'


def alone(fragment: str, title: str) -> str:
    """The fragment as a page of its own."""
    return page.document(title, fragment)


def _outputs(reference: pd.DataFrame, current: pd.DataFrame) -> str:
    charts = []
    if "score" in reference and "score" in current:
        r, c = finite(reference["score"]).dropna(), finite(current["score"]).dropna()
        if len(r) and len(c):
            edges = np.linspace(0, 1, 41)
            charts.append(
                page.figure(
                    "Fraud score, share of rows per bin (log scale): grey reference, blue now",
                    page.histogram(
                        np.histogram(r, edges)[0].tolist(),
                        np.histogram(c, edges)[0].tolist(),
                        ("0", "1"),
                        logarithmic=True,
                    ),
                )
            )
    if "decision" in current:
        now = current["decision"].value_counts(normalize=True)
        then = (
            reference["decision"].value_counts(normalize=True)
            if "decision" in reference
            else pd.Series(dtype=float)
        )
        rows = [
            (name, float(then.get(name, 0.0)), float(now.get(name, 0.0)))
            for name in ("APPROVE", "REVIEW", "BLOCK")
        ]
        note = "" if "decision" in reference else " (the reference has no decisions)"
        charts.append(page.figure(f"Decision mix: grey reference, blue now{note}", page.pairs_of_bars(rows)))
    return (
        f'<div class="charts">{"".join(charts)}</div>'
        if charts
        else '<p class="muted">No score was logged.</p>'
    )


def _performance(result: DriftResult) -> str:
    matured = result.matured
    assert matured is not None
    intro = f"<p>{matured.rows:,} transactions whose labels have matured, {matured.frauds:,} frauds among them.</p>"
    if matured.card_precision is not None:
        intro += (
            f"<p>Of the {ALERTS_A_DAY} customers with the highest scores of a day, "
            f"{page.percent(matured.card_precision)} had a fraud on it.</p>"
        )
    if not result.performance:
        return intro + "<p class='muted'>No baseline to hold them against yet.</p>"
    rows = [
        [escape(s.title), escape(performance_phrase(s).partition(": ")[2]),
         page.tag("bad", "moved") if s.beyond else page.tag("good", "holds")]
        for s in result.performance
    ]  # fmt: skip
    return intro + page.table(["Statistic", "Baseline → now", "Verdict"], rows)


def _segments(result: DriftResult) -> str:
    rows = [
        [escape(s.name), f"{s.rows:,}", page.number(s.moved, 2), f"{page.number(s.score[0])} → {page.number(s.score[1])}",
         f"{page.percent(s.alerts[0], 2)} → {page.percent(s.alerts[1], 2)}" if s.alerts else "–"]
        for s in result.segments[:10]
    ]  # fmt: skip
    head = ["Segment", "Decisions", "Score moved (deviations)", "Mean score", "Alerts"]
    return page.table(head, rows, numeric=(1, 2, 3, 4))


def _freshness(result: DriftResult) -> str:
    states = ("fresh", "missing", "stale", "timeout")
    rows = [
        [escape(view), *[page.percent(shares.get(state, 0.0)) for state in states]]
        for view, shares in result.freshness.items()
    ]
    return page.table(["View", "Fresh", "Missing", "Stale", "Timed out"], rows, numeric=(1, 2, 3, 4))


def _attribution(result: DriftResult) -> str:
    found = result.attribution
    assert found is not None
    rows = [[escape(name), page.percent(then), page.percent(now)] for name, then, now in found.shares[:8]]
    text = (
        f"<p>{page.percent(found.moved)} of the model's reasons moved from some inputs to others "
        "<small>(shares of mean absolute SHAP values; samples alone move a few percent)</small>.</p>"
    )
    return text + page.table(["Input", "Share at the reference", "Share now"], rows, numeric=(1, 2))


def _columns(
    result: DriftResult,
    reference: pd.DataFrame,
    current: pd.DataFrame,
    days: pd.Series,
    thresholds: Thresholds,
) -> str:
    shown = [c for c in result.columns if c.kind != "empty" and c.column in current][:MOST_ROWS]
    empty = [c.column for c in result.columns if c.kind == "empty"]
    r, c = sample(reference, 20_000), sample(current, 20_000)
    rows = []
    for column in shown:
        lead = max(column.values, key=lambda m: column.values[m] / column.limits[m])
        rows.append(
            [
                f"<b>{escape(column.column)}</b>" if column.drifted else escape(column.column),
                page.tag("bad", "moved") if column.drifted else page.tag("quiet", "holds"),
                f'<span title="{escape(MEASURE_MEANING[lead])}">{lead}</span> {page.number(column.values[lead])}',
                page.number(column.limits[lead]),
                f"{page.number(column.reference_mean)} → {page.number(column.current_mean)}",
                f"{page.percent(column.reference_missing)} → {page.percent(column.current_missing)}",
                _shape(column, r, c),
                _daily(column, lead, reference, current, days, thresholds) if column.drifted else "",
            ]
        )
    drifted = sum(column.drifted for column in result.columns)
    measures = "; ".join(f"{name}: {meaning}" for name, meaning in MEASURE_MEANING.items())
    head = ["Column", "", "Measure", "Limit", "Average", "Missing", "Shape (grey then, blue now)", "Each day"]
    text = f"<p>{drifted} of {len(result.columns)} columns moved beyond their limit. <small>{escape(measures)}.</small></p>"
    more = len(result.columns) - len(shown) - len(empty)
    tail = f"<p><small>{more} more columns hold; all are in drift.json.</small></p>" if more > 0 else ""
    if empty:
        tail += f"<p><small>No value on either side: {escape(', '.join(empty))}.</small></p>"
    return text + page.table(head, rows, numeric=(2, 3)) + tail


def _shape(column: ColumnDrift, reference: pd.DataFrame, current: pd.DataFrame) -> str:
    r, c = reference[column.column].dropna(), current[column.column].dropna()
    if not len(r) or not len(c):
        return ""
    if column.kind == "numeric":
        low, high = np.quantile(r, 0.01), np.quantile(r, 0.99)
        low, high = min(low, float(np.quantile(c, 0.01))), max(high, float(np.quantile(c, 0.99)))
        if not np.isfinite([low, high]).all() or low == high:
            return ""
        edges = np.linspace(low, high, 25)
        counts = [np.histogram(np.clip(x, low, high), edges)[0].tolist() for x in (r, c)]
        labels = page.number(float(low)), page.number(float(high))
    else:
        keys = list(dict.fromkeys([*r.value_counts().index[:12], *c.value_counts().index[:12]]))
        keys = sorted(keys, key=str) if not pd.api.types.is_numeric_dtype(r) else sorted(keys)
        counts = [x.value_counts().reindex(keys, fill_value=0).tolist() for x in (r, c)]
        labels = str(keys[0])[:12], str(keys[-1])[:12]
    return page.histogram(counts[0], counts[1], labels, width=170, height=58)


def _daily(
    column: ColumnDrift,
    lead: str,
    reference: pd.DataFrame,
    current: pd.DataFrame,
    days: pd.Series,
    thresholds: Thresholds,
) -> str:
    small = sample(reference, 10_000)[column.column]
    values = [
        measure_column(column.column, small, sample(rows, 10_000)[column.column], thresholds).values.get(
            lead, 0.0
        )
        for _, rows in current.groupby(days, sort=True)
    ]
    return page.days_against_limit(values, column.limits[lead])


def plain(result: DriftResult) -> dict[str, Any]:
    """The result as plain values."""
    return {
        "week": result.week,
        "action": result.verdict.action,
        "exit_code": result.exit_code,
        "rows": {"reference": result.rows[0], "current": result.rows[1]},
        "verdict": asdict(result.verdict),
        "drifted_features": result.drifted_features,
        "drifted_outputs": result.drifted_outputs,
        "left_out": result.left_out,
        "since": {name: asdict(since) for name, since in result.since.items()},
        "columns": [asdict(column) for column in result.columns],
        "performance": [asdict(signal) for signal in result.performance],
        "matured": asdict(result.matured) if result.matured else None,
        "money": asdict(result.money) if result.money else None,
        "segments": [asdict(segment) for segment in result.segments],
        "strangers": [asdict(each) for each in result.strangers],
        "freshness": result.freshness,
        "attribution": asdict(result.attribution) if result.attribution else None,
    }


def to_json(result: DriftResult, evidently: Mapping[str, Any]) -> str:
    """Everything measured, with Evidently's own results beside it. Infinite values become null."""
    content = {**plain(result), "evidently": evidently}
    return json.dumps(_finite(content), indent=1) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def to_markdown(result: DriftResult) -> str:
    """The first page, for chats and mail."""
    v = result.verdict
    changed = "\n".join(f"  - {text}" for text in v.changed)
    return (
        f"# Drift report, {result.week}: {v.headline}\n\n{v.todo}\n\n"
        f"- What changed:\n{changed}\n- Since when: {v.since}\n- How sure: {v.sure}\n- What it costs: {v.costs or '–'}\n\n"
        f"{result.rows[1]:,} decisions against {result.rows[0]:,} reference rows; "
        f"{len(result.drifted_features)} of {len(result.columns)} columns moved"
        f"{': ' + ', '.join(result.drifted_features[:20]) if result.drifted_features else ''}.\n"
    )


def to_prometheus(result: DriftResult) -> str:
    """Gauges for Prometheus's textfile collector."""
    level = ACTIONS.index(result.verdict.action)
    strongest = max((column.strength for column in result.columns), default=0.0)
    columns = sum(column.drifted for column in result.columns)
    asks = "What the last weekly report asks for: 0 nothing, 1 watch, 2 recalibrate, 3 retrain"
    lines = [
        gauges.text("tollgate_drift_action", asks, [({}, float(level))]),
        gauges.text(
            "tollgate_drift_columns",
            "Columns beyond their limit in the last weekly report",
            [({}, float(columns))],
        ),
        gauges.text(
            "tollgate_drift_strength", "The strongest column, as a multiple of its limit", [({}, strongest)]
        ),
    ]
    for name, estimate in (result.matured.statistics if result.matured else {}).items():
        meaning = f"{TITLES[name]}, of the last matured transactions"
        lines.append(gauges.text(f"tollgate_matured_{name}", meaning, [({}, estimate.value)]))
    if result.money is not None:
        met, passed = result.money.met, result.money.passed
        by = [({"outcome": "met"}, met), ({"outcome": "passed"}, passed)]
        lines.append(
            gauges.text("tollgate_matured_fraud_amount", "Matured fraud, in the reference currency", by)
        )
        bothered = "Share of genuine matured transactions that were not approved"
        lines.append(gauges.text("tollgate_matured_insult_share", bothered, [({}, result.money.insulted)]))
    return "".join(lines)
