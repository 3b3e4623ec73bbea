"""The command behind `python -m monitoring.drift`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from monitoring import gauges
from monitoring.decisions import (
    DecisionLogError,
    canonical_week,
    matured,
    read_decisions,
    read_labels,
    week_bounds,
    week_name,
)
from monitoring.drift import page as drift_page
from monitoring.drift.performance import FEWEST_WEEKS
from monitoring.drift.report import DriftInputError, drift_report
from monitoring.drift.thresholds import Thresholds
from monitoring.drift.trend import write_trend
from stores.decisions import decisions_folder
from stores.deployment import DeploymentError, read_deployment
from stores.models import model_folder, store_folder, versions
from stores.settings import settings


@dataclass(frozen=True, slots=True)
class ModelReference:
    """What the model folder says of the data the model was judged on."""

    frame: pd.DataFrame
    decide_at: tuple[float, float] | None
    importance: dict[str, float]
    features: list[str] | None
    model: Path | None = None


def read_reference(path: Path) -> ModelReference:
    """Read a model folder (reference.parquet and manifest.json) or a parquet file alone."""
    file = path / "reference.parquet" if path.is_dir() else path
    if not file.exists():
        raise DriftInputError(f"no reference at {file}: train and save a model first")
    frame = representative(pd.read_parquet(file))
    manifest = file.parent / "manifest.json"
    if not manifest.exists():
        return ModelReference(frame, None, {}, None)
    facts = json.loads(manifest.read_bytes())
    limits = facts.get("thresholds") or {}
    decide_at = (
        (float(limits["review"]), float(limits["block"])) if {"review", "block"} <= set(limits) else None
    )
    text = file.parent / "model.txt"
    return ModelReference(
        frame, decide_at, facts.get("gain") or {}, facts.get("features"), text if text.exists() else None
    )


def representative(frame: pd.DataFrame) -> pd.DataFrame:
    """A reference as if it had not been thinned: where rows stand for `weight` transactions each, they
    are drawn again in proportion to it, the same ones every time."""
    if "weight" not in frame or frame["weight"].nunique() <= 1:
        return frame.drop(columns="weight", errors="ignore")
    drawn = frame.sample(len(frame), replace=True, weights="weight", random_state=20180401)
    return drawn.drop(columns="weight").sort_values("event_timestamp", ignore_index=True)


def champion_folder(home: Path) -> Path:
    """The folder of the model in service, or of the one saved last; DriftInputError without any."""
    saved = [model_folder(home, version) for version in versions(home)]
    saved = [folder for folder in saved if (folder / "reference.parquet").is_file()]
    if not saved:
        raise DriftInputError(
            f"no model with a reference under {store_folder(home)}: train and save one first"
        )
    try:
        champion = read_deployment(home).champion
    except DeploymentError as error:
        raise DriftInputError(str(error)) from None
    return next((folder for folder in saved if folder.name == champion), saved[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one week's report and return its exit code."""
    chosen = _parser().parse_args(arguments)
    home = settings().home
    try:
        model = read_reference(chosen.reference or champion_folder(home))
        chosen.week = canonical_week(chosen.week) if chosen.week else None
        start, end = week_bounds(chosen.week) if chosen.week else (None, None)
        current = read_decisions(chosen.current, start=start, end=end).to_pandas()
        if not len(current):
            raise DriftInputError(f"no decision in {chosen.week or 'the log'}: choose a week that has some")
        last = pd.to_datetime(current["event_timestamp"], utc=True).max().to_pydatetime()
        week = chosen.week or week_name(last)
        as_of = chosen.as_of or end or last
        labelled = _labelled(chosen.current, chosen.labels, as_of, settings().history.label_maturity_days)
        limits = chosen.thresholds or settings().results / "drift" / "thresholds.json"
        out = chosen.out or settings().results / "drift" / week
        thresholds = Thresholds.load(limits) if limits.exists() else Thresholds()
        earlier = earlier_statistics(settings().results / "drift", week)
        result = drift_report(
            model.frame, current, out, week=week, features=model.features, labelled=labelled,
            baseline=earlier or None,
            thresholds=thresholds, decide_at=model.decide_at, importance=model.importance, model=model.model,
            workspace=settings().results / "drift" / "workspace",
        )  # fmt: skip
    except (DecisionLogError, DriftInputError, ValueError) as error:
        print(f"drift: {error}", file=sys.stderr)
        return 2
    gauges.publish("drift", drift_page.to_prometheus(result))
    write_trend(settings().results / "drift")
    print((out / "drift.md").read_text())
    print(result.report)
    return result.exit_code if chosen.exit_code else 0


def earlier_statistics(reports: Path, week: str) -> dict[str, list[float]]:
    """Statistics of matured transactions from the reports of earlier weeks, but those they called moved.

    Empty with fewer than `FEWEST_WEEKS` of them: the reference is the better baseline then.
    """
    found: dict[str, list[float]] = {}
    for path in sorted(reports.glob("*-W*/drift.json")):
        content = json.loads(path.read_text())
        if path.parent.name >= week or not content.get("matured"):
            continue
        moved = {signal["name"] for signal in content["performance"] if signal["beyond"]}
        for name, estimate in content["matured"]["statistics"].items():
            if name not in moved:
                found.setdefault(name, []).append(estimate["value"])
    return {name: values for name, values in found.items() if len(values) >= FEWEST_WEEKS}


def _labelled(log: Path, labels: Path, as_of: datetime, maturity_days: int) -> pd.DataFrame | None:
    """Decisions of the seven days that matured last at `as_of`, or None if there are none."""
    end = as_of - timedelta(days=maturity_days)
    wanted = [
        "transaction_id",
        "event_timestamp",
        "customer_id",
        "amount_reference",
        "score",
        "decision",
        "channel",
    ]
    rows = read_decisions(log, start=end - timedelta(days=7), end=end, columns=wanted).to_pandas()
    if not len(rows) or not labels.exists():
        return None
    return matured(rows, read_labels(labels, known_by=as_of), as_of=as_of, maturity_days=maturity_days)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _parser() -> argparse.ArgumentParser:
    home = settings().home
    parser = argparse.ArgumentParser(prog="python -m monitoring.drift", description="the weekly drift report")
    parser.add_argument(
        "--reference", type=Path, help="model folder or parquet file (default: the champion's)"
    )
    parser.add_argument("--current", type=Path, default=decisions_folder(home), help="decision log")
    parser.add_argument("--week", help="ISO week such as 2018-W34 (default: everything in the log)")
    parser.add_argument("--labels", type=Path, default=home / "lake" / "labels", help="labels in the lake")
    parser.add_argument("--as-of", type=_moment, help="when labels count as known (default: the week's end)")
    parser.add_argument(
        "--thresholds", type=Path, help="calibrated limits (default: results/drift/thresholds.json)"
    )
    parser.add_argument("--out", type=Path, help="folder of the report (default: results/drift/<week>)")
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with the verdict: 3 recalibrate, 4 retrain"
    )
    return parser
