"""The weeks side by side: results/drift/trend.html, from the reports that are there."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from monitoring import page
from monitoring.drift.verdict import ACTIONS, TONES


def write_trend(results: Path) -> Path | None:
    """Write the trend page over every week's drift.json under `results`; None without any."""
    weeks = [json.loads(path.read_text()) for path in sorted(results.glob("*-W*/drift.json"))]
    return page.write(results / "trend.html", trend_page(weeks)) if weeks else None


def trend_page(weeks: list[dict[str, Any]]) -> str:
    """The page: actions, columns that moved, matured performance, and a line a week."""
    names = [week["week"] for week in weeks]
    moved: list[float | None] = [float(len(week["drifted_features"])) for week in weeks]
    strongest: list[float | None] = [
        max(
            (max((v / c["limits"][m] for m, v in c["values"].items()), default=0.0) for c in week["columns"]),
            default=0.0,
        )
        for week in weeks
    ]
    statistics = [(week["matured"] or {}).get("statistics", {}) for week in weeks]

    def series(name: str) -> list[float | None]:
        return [(entry.get(name) or {}).get("value") for entry in statistics]

    charts = "".join(
        [
            page.figure("Columns beyond their limit", page.line_chart(names, [("columns", moved, page.NOW)])),
            page.figure("Strongest column, as a multiple of its limit", page.line_chart(names, [("strength", strongest, page.NOW)], limit=1.0)),
            page.figure("Average precision and share caught, matured", page.line_chart(names, [("average precision", series("average_precision"), page.NOW), ("caught", series("caught"), "#1d7a52")])),
            page.figure("Expected over observed frauds, matured", page.line_chart(names, [("ratio", series("calibration"), page.NOW)], limit=1.0)),
        ]
    )  # fmt: skip
    rows = [
        [
            f'<a href="{escape(week["week"])}/drift.html">{escape(week["week"])}</a>',
            page.tag(TONES[week["action"]], week["action"]),
            f"{week['rows']['current']:,}",
            str(len(week["drifted_features"])),
            escape(week["verdict"]["changed"][0]) if week["verdict"]["changed"] else "",
        ]
        for week in reversed(weeks)
    ]
    calls = sum(ACTIONS.index(week["action"]) >= 2 for week in weeks)
    body = (
        f"<h1>Drift by week</h1><p class='muted'>{len(weeks)} reports, {calls} of them asked for action</p>"
        f'<div class="charts">{charts}</div><h2>Weeks</h2>'
        + page.table(["Week", "Action", "Decisions", "Columns moved", "First change"], rows, numeric=(2, 3))
    )
    return page.document("Drift by week", body)
