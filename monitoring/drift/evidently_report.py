"""The Evidently side of a drift report: its tests and plots, with our words in front of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pandas as pd

from monitoring.drift.measures import (
    DECILE_PSI,
    ColumnDrift,
    finite,
    prepare,
    register_with_evidently,
    sample,
    top_categories,
)

#: Our measures by the names of Evidently's tests.
METHODS: Final = {"psi": DECILE_PSI, "wasserstein": "wasserstein", "js": "jensenshannon"}
#: The workspace's project that the weeks' runs lie in.
PROJECT: Final = "Tollgate"
#: Columns with plots: each costs about 40 kB of page and a third of a second.
MOST_PLOTS: Final = 20
#: An Evidently page without any metric; it leaves 1.3 MB for plots under the 5 MB limit.
LARGEST_PAGE: Final = 5_000_000


_LOOK_ALIKES: Final = str.maketrans({"<": "\u2039", ">": "\u203a"})


class ReportTooLargeError(ValueError):
    """The page would be larger than people can mail; the text says how large."""


@dataclass(frozen=True, slots=True)
class EvidentlyRun:
    """Evidently's page and its results."""

    html: str
    results: dict[str, Any]
    snapshot: Any


def run(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    drifts: Sequence[ColumnDrift],
    *,
    always: Sequence[str] = (),
    week: str = "latest",
    at: datetime | None = None,
) -> EvidentlyRun:
    """Evidently's value drift and missing values for the columns that most deserve a plot.

    `drifts` comes strongest first; `always` names columns that are plotted whatever they did.
    Results hold a test for each metric, with our limits. `week` and `at` (UTC) name the run in a workspace.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's own imports warn about pydantic and numpy
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import MissingValueCount, ValueDrift
        from evidently.tests import Reference, eq

    register_with_evidently()
    chosen = choose([drift for drift in drifts if drift.column in current], always)
    r, c = sample(reference), sample(current)
    frames = [pd.DataFrame(index=frame.index) for frame in (r, c)]
    numeric: list[str] = []
    metrics: list[Any] = []
    for drift in chosen:
        name, limits = drift.column, drift.limits
        left, right = r[name], c[name]
        if drift.kind == "numeric":
            kind, left, right = prepare(name, finite(left), finite(right))
        else:
            kind, shown = drift.kind, tuple(map(without_markup, top_categories(left, right)))
            left, right = (side.reindex(frame.index) for side, frame in zip(shown, frames, strict=True))
        frames[0][name], frames[1][name] = left, right
        if kind == "numeric":
            numeric.append(name)
        measured = [measure for measure in ("psi", "wasserstein", "js") if measure in drift.values]
        if measured:
            lead = max(measured, key=lambda measure: drift.values[measure] / limits[measure])
            metrics.append(ValueDrift(column=name, method=METHODS[lead], threshold=limits[lead]))
        if drift.values["missing"] > 0:
            close = eq(Reference(absolute=limits["missing"]))
            metrics.append(MissingValueCount(column=name, tests=[], share_tests=[close]))
    category = [drift.column for drift in chosen if drift.column not in numeric]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=category)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snapshot = Report(metrics, include_tests=True).run(
            Dataset.from_pandas(frames[1], definition), Dataset.from_pandas(frames[0], definition),
            name=week, timestamp=at,
        )  # fmt: skip
        return EvidentlyRun(snapshot.get_html_str(as_iframe=False), as_results(snapshot), snapshot)


def keep(run: EvidentlyRun, workspace: Path) -> None:
    """Put a run into Evidently's workspace (`evidently ui --workspace ...` shows it), in place of one of its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.ui.workspace import Workspace

        opened = Workspace.create(str(workspace))
        project = next(iter(opened.search_project(PROJECT)), None) or opened.create_project(PROJECT)
        for earlier in opened.list_runs(project.id):
            if opened.get_run(project.id, earlier).name == run.snapshot.get_name():
                opened.delete_run(project.id, earlier)
        opened.add_run(project.id, run.snapshot)


def choose(drifts: Sequence[ColumnDrift], always: Sequence[str]) -> list[ColumnDrift]:
    """At most `MOST_PLOTS` columns: `always` first, then the strongest that hold anything."""
    held = [drift for drift in drifts if drift.kind != "empty"]
    first = [drift for drift in held if drift.column in always]
    rest = [drift for drift in held if drift.column not in always]
    return (first + rest)[:MOST_PLOTS]


def as_results(snapshot: Any) -> dict[str, Any]:
    """Metrics and tests of a snapshot as plain values (its own `dict()` holds enums)."""
    return dict(json.loads(snapshot.json()))


def without_markup(values: pd.Series[Any]) -> pd.Series[Any]:
    """Texts with look-alikes in place of `<` and `>`: Evidently writes them as they are into its `<script>`."""
    return values.map(lambda value: value.translate(_LOOK_ALIKES) if isinstance(value, str) else value)


def with_first_page(evidently_html: str, first_page: str, title: str) -> str:
    """Evidently's page with `first_page` in front of its plots, as one self-contained file."""
    head, found, rest = evidently_html.partition("<body>")
    if not found:
        raise ValueError("Evidently's page has no <body>: its layout changed, check the pinned version")
    head = head.replace("</head>", f"<title>{title}</title></head>", 1)
    page = f"{head}<body>{first_page}{rest}"
    if len(page.encode()) > LARGEST_PAGE:
        raise ReportTooLargeError(
            f"the report is {len(page.encode()) / 1e6:.1f} MB, above {LARGEST_PAGE / 1e6:.0f} MB"
        )
    return page
