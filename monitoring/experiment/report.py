"""The report of a running experiment: `python -m monitoring.experiment` (`make experiment-report`).

Reads the deployment, its history, the decision log and the labels; writes `experiment.html` and
`experiment.json` to `results/experiments/<challenger>/`, which the gates of promotion read. Only decisions
that the two models made since the canary began, and whose labels are mature, are compared. The champion is
also held against each shadow, which scored the same transactions and decided none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fraud.decision.experiment import Experiment
from monitoring import page
from monitoring.decisions import DecisionLogError, matured, read_decisions, read_labels
from monitoring.experiment.arms import Arm, Compared, compare
from stores.decisions import decisions_folder
from stores.deployment import Change, Deployment, read_deployment, read_history
from stores.files import write_whole
from stores.settings import settings
from training import metrics
from training.bootstrap import difference_interval
from training.thresholds import CostModel

#: Days of decisions that an experiment is planned for, unless told otherwise.
PLANNED_DAYS = 28.0
COLUMNS = (
    "transaction_id", "event_timestamp", "decided_at", "customer_id", "card_id", "channel",
    "amount_reference", "score", "decision", "variant", "model_version", "shadow_scores",
)  # fmt: skip


class ExperimentError(ValueError):
    """An experiment that cannot be reported; the text says what is missing."""


def began(history: Sequence[Change], version: str) -> datetime:
    """When `version` last became challenger; raises ExperimentError if it never did."""
    for change in reversed(history):
        if change.step == "canary" and change.version == version:
            return datetime.fromisoformat(change.at).astimezone(UTC)
    raise ExperimentError(f"the history knows no canary of {version}")


def live_rows(home: Path, lake: Path, since: datetime, as_of: datetime, maturity_days: int) -> pd.DataFrame:
    """Decisions made since then whose labels can be trusted at `as_of`, with `is_fraud`."""
    table = read_decisions(decisions_folder(home), columns=list(COLUMNS))
    decisions = table.to_pandas()
    decisions = decisions[decisions["decided_at"] >= since]
    labels = read_labels(lake / "labels", known_by=as_of)
    return matured(decisions, labels, as_of=as_of, maturity_days=maturity_days).reset_index(drop=True)


def against_shadows(rows: pd.DataFrame, shadows: Sequence[str], champion: str) -> list[dict[str, Any]]:
    """The champion's average precision less each shadow's on the same matured transactions."""
    found = []
    scored = rows[(rows["model_version"] == champion) & rows["score"].notna()]
    beside = [dict(pairs or ()) for pairs in scored["shadow_scores"]]
    for version in shadows:
        other = np.array([scores.get(version, np.nan) for scores in beside], dtype=np.float64)
        both = scored[np.isfinite(other)]
        label = both["is_fraud"].to_numpy(np.int8)
        if not len(both) or not label.any():
            found.append({"version": version, "rows": len(both), "difference": None, "interval": None})
            continue
        mine, theirs = both["score"].to_numpy(np.float64), other[np.isfinite(other)]
        gain = metrics.average_precision(metrics.rank(label, theirs)) - metrics.average_precision(
            metrics.rank(label, mine)
        )
        span = difference_interval(
            label, theirs, mine, metrics.average_precision, groups=both["customer_id"].to_numpy()
        )
        found.append({"version": version, "rows": len(both), "difference": gain, "interval": list(span)})
    return found


def experiment_report(
    rows: pd.DataFrame,
    deployment: Deployment,
    since: datetime,
    as_of: datetime,
    *,
    planned_days: float = PLANNED_DAYS,
    maturity_days: int = 0,
    cost: CostModel | None = None,
) -> dict[str, Any]:
    """Everything in experiment.json. Raises ExperimentError without decisions of both."""
    champion, challenger = deployment.champion, deployment.challenger
    if champion is None or challenger is None:
        raise ExperimentError("no challenger is in service: `tollgate promote canary VERSION` begins one")
    mine = rows[rows["model_version"].isin((champion, challenger))]
    covered = max((as_of - timedelta(days=maturity_days) - since).total_seconds() / 86_400, 1 / 24)
    planned = round(len(mine) * max(planned_days / covered, 1.0)) if covered < planned_days else len(mine)
    split = Experiment(deployment.experiment, deployment.share, deployment.key)
    try:
        found: Compared = compare(mine, split, cost=cost, planned_rows=planned)
    except ValueError as error:
        raise ExperimentError(str(error)) from None
    return {
        "experiment": deployment.experiment,
        "champion_version": champion,
        "challenger_version": challenger,
        "since": since.isoformat(),
        "as_of": as_of.isoformat(),
        "matured_days": covered,
        "planned_days": planned_days,
        **found.report(),
        "shadows": against_shadows(rows, deployment.shadow, champion),
        "cost_model": asdict(cost or CostModel()),
    }


def html(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    tones: dict[str, page.Tone] = {"better": "good", "worse": "bad", "void": "bad"}
    champion, challenger = (Arm(**report[name]) for name in ("champion", "challenger"))
    shown = [
        ("cost a transaction, cents", "cost", "{:.2f}"), ("review", "review_rate", "{:.2%}"),
        ("block", "block_rate", "{:.2%}"), ("insult rate", "insult_rate", "{:.3%}"),
        ("frauds stopped", "caught", "{:.1%}"), ("average precision", "average_precision", "{:.3f}"),
        ("precision at the review budget", "precision_at_budget", "{:.3f}"),
        ("expected over observed frauds", "calibration", "{:.2f}"), ("decisions", "rows", "{:,}"),
        ("frauds", "frauds", "{:,}"), ("customers", "customers", "{:,}"),
    ]  # fmt: skip
    rows = [
        [
            title, form.format(getattr(champion, name)), form.format(getattr(challenger, name)),
            _span(report["intervals"].get(name)),
        ]
        for title, name, form in shown
    ]  # fmt: skip
    slices = [
        [
            escape(each["slice"]), f"{each['rows'][0]:,}", f"{each['rows'][1]:,}", f"{each['saved']:+.2f}",
            _span(each["interval"]),
        ]
        for each in report["slices"]
    ]  # fmt: skip
    shadows = [
        [
            escape(each["version"]), f"{each['rows']:,}",
            "–" if each["difference"] is None else f"{each['difference']:+.4f}", _span(each["interval"]),
        ]
        for each in report["shadows"]
    ]  # fmt: skip
    parts = [
        f"<h1>Experiment {escape(report['experiment'])}</h1>",
        f'<p class="muted">{escape(champion.version)} against {escape(challenger.version)} since '
        f"{escape(report['since'])}, labels as known at {escape(report['as_of'])}; "
        f"{report['matured_days']:.1f} of {report['planned_days']:g} planned days are mature</p>",
        page.verdict(tones.get(report["verdict"], "quiet"), report["verdict"], report["reason"]),
        page.table(["", "champion", "challenger", "difference, 95%"], rows, numeric=(1, 2, 3)),
        "<h2>What the challenger saves, by slice</h2>"
        '<p class="muted">Cents a transaction, ordinary 95% intervals: where to look, not what to decide by.'
        "</p>",
        page.table(["slice", "champion", "challenger", "saved", "95%"], slices, numeric=(1, 2, 3, 4)),
    ]
    if shadows:
        parts += [
            "<h2>Shadows</h2>",
            page.table(["shadow", "same transactions", "average precision gained", "95%"], shadows,
                       numeric=(1, 2, 3)),
        ]  # fmt: skip
    return page.document(f"Experiment {report['experiment']}", "".join(parts))


def _span(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def write_report(report: dict[str, Any], folder: Path) -> Path:
    """Write both files and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(report), indent=1, allow_nan=False)
    write_whole(folder / "experiment.json", text + "\n")
    write_whole(folder / "experiment.html", html(report))
    return folder / "experiment.html"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def main(argv: list[str] | None = None) -> int:
    """Report on the experiment in service; 1 with the reason if there is none to report."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.experiment", description="Champion against challenger, live."
    )
    parser.add_argument("--as-of", type=datetime.fromisoformat, help="what was known then (default: now)")
    parser.add_argument("--planned-days", type=float, default=PLANNED_DAYS, help="fixed before it begins")
    options = parser.parse_args(argv)
    as_of = options.as_of or datetime.now(UTC)
    as_of = as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    chosen = settings()
    try:
        deployment = read_deployment(chosen.home)
        if deployment.challenger is None:
            raise ExperimentError("no challenger is in service: `tollgate promote canary VERSION` begins one")
        since = began(read_history(chosen.home), deployment.challenger)
        days = chosen.history.label_maturity_days
        rows = live_rows(chosen.home, chosen.lake, since, as_of, days)
        report = experiment_report(
            rows, deployment, since, as_of, planned_days=options.planned_days, maturity_days=days
        )
    except (ExperimentError, DecisionLogError) as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 1
    written = write_report(report, chosen.results / "experiments" / deployment.challenger)
    print(f"experiment: {report['verdict']}: {report['reason']}")
    print(f"experiment: {written}")
    return 0
