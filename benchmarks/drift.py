"""The drift reports' exam: known drifts of a synthetic world, and 26 weeks without any.

    python -m benchmarks.drift          writes results/bench/drift.json and drift.html

One world, one model. Weeks are counted from the world's first Monday:

    0-4 history | 5-10 training | 11-16 calibration of the limits | 17-42 quiet weeks, one report each
    for each kind of drift: the same world, changed from week 23 on; reports of weeks 23 to 25

Vectors are the platform's own (`benchmarks.drift_weeks`). A report comes at the end of its week and
knows the labels that were known then. `weeks_late` 0 means the first report after the change.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fraud.features.feature_list import VECTOR
from monitoring import page
from monitoring.decisions import matured
from monitoring.drift.measures import measure
from monitoring.drift.performance import performance
from monitoring.drift.report import DriftResult, drift_report
from monitoring.drift.thresholds import Thresholds, calibrate
from stores.settings import settings

START: Final = date(2025, 1, 6)
#: Every world is generated over the same days: with another span the same seed gives another world.
DAYS: Final = 301
TRAIN: Final = (5, 11)
CALIBRATE: Final = range(11, 17)
QUIET: Final = range(17, 43)
CHANGE: Final = 23
WATCHED: Final = range(CHANGE, CHANGE + 3)
KINDS: Final = ("amounts_up", "channel_mix", "new_fraud_type", "halved_attacks", "field_missing")


@dataclass(frozen=True, slots=True)
class Judge:
    """The model and everything a report is held against."""

    model: Any
    thresholds: tuple[float, float]
    importance: dict[str, float]
    reference: pd.DataFrame
    limits: Thresholds
    baseline: dict[str, list[float]]


class World:
    """Weeks of one dataset, scored."""

    def __init__(self, home: Path, judge_by: Any, decide_at: tuple[float, float]) -> None:
        self._home, self._model, self._decide_at = home, judge_by, decide_at
        self._labels = labels_of(home)

    def week(self, number: int) -> pd.DataFrame:
        """The decisions of a week."""
        frame: pd.DataFrame = pq.read_table(self._home / "weeks" / f"{number:03d}.parquet").to_pandas()
        frame["score"] = self._model.score(frame[list(VECTOR)].to_numpy(np.float64))
        review, block = self._decide_at
        score = frame["score"]
        frame["decision"] = np.where(score >= block, "BLOCK", np.where(score >= review, "REVIEW", "APPROVE"))
        return frame

    def matured_before(self, number: int) -> pd.DataFrame:
        """The week before `number`, as its labels were known when `number` ended."""
        as_of = end_of(number)
        known = self._labels[self._labels["created_timestamp"] <= as_of].sort_values("created_timestamp")
        latest = known.drop_duplicates("transaction_id", keep="last")[["transaction_id", "is_fraud"]]
        days = settings().history.label_maturity_days
        earlier = self.week(number - 1)
        return matured(
            earlier, pa.Table.from_pandas(latest, preserve_index=False), as_of=as_of, maturity_days=days
        )


def end_of(week: int) -> datetime:
    """When the week is over."""
    return datetime.combine(START, datetime.min.time(), UTC) + timedelta(weeks=week + 1)


def weeks_of(home: Path, first: int, last: int, days: int, drifts: Sequence[str] = ()) -> None:
    """Build the weeks of one dataset, first to last, in a process of its own."""
    log = home.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "benchmarks.drift_weeks", "--start", START.isoformat(), "--days", str(days),
        "--first-week", str(first), "--weeks", str(last + 1 - first), "--drift", *drifts,
    ]  # fmt: skip
    with log.open("w") as output:
        done = subprocess.run(
            command,
            env={**os.environ, "TOLLGATE_HOME": str(home), "TZ": "UTC"},
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"building {home.name} failed; see {log}")


def training_rows(home: Path, labels: pd.DataFrame) -> Any:
    """The training weeks with labels as they were known at their end."""
    from training.rows import rows_of

    as_of = end_of(TRAIN[1] - 1)
    known = labels[labels["created_timestamp"] <= as_of].sort_values("created_timestamp")
    frauds = set(known.drop_duplicates("transaction_id", keep="last").query("is_fraud")["transaction_id"])
    tables = [pq.read_table(home / "weeks" / f"{week:03d}.parquet") for week in range(*TRAIN)]
    table = pa.concat_tables(tables)
    label = [identifier in frauds for identifier in table["transaction_id"].to_pylist()]
    ripe = as_of - timedelta(days=settings().history.label_maturity_days)
    mature = (table["event_timestamp"].to_pandas() <= ripe).to_numpy()
    table = table.append_column("is_fraud", pa.array(label)).append_column("label_mature", pa.array(mature))
    return rows_of(table, VECTOR)


def labels_of(home: Path) -> pd.DataFrame:
    """Every label of a world, with when it became known."""
    files = sorted((home / "dataset" / "labels").glob("*.parquet"))
    frame: pd.DataFrame = pa.concat_tables([pq.read_table(path) for path in files]).to_pandas()
    return frame


def prepare(home: Path) -> Judge:
    """Train on the quiet world, and calibrate limits and baseline on its next six weeks."""
    from training.plan import Plan
    from training.save import gains, reference_table
    from training.train import train

    rows = training_rows(home, labels_of(home))
    trained = train(rows, Plan(delay_days=settings().history.label_maturity_days, final="judged"))
    decide_at = (trained.thresholds.review, trained.thresholds.block)
    reference = reference_table(trained, rows).to_pandas()
    reference["decision"] = np.where(
        reference["score"] >= decide_at[1],
        "BLOCK",
        np.where(reference["score"] >= decide_at[0], "REVIEW", "APPROVE"),
    )
    world = World(home, trained.model, decide_at)
    quiet: list[dict[str, dict[str, float]]] = []
    baseline: dict[str, list[float]] = {}
    for number in CALIBRATE:
        found = measure(reference, world.week(number), [*VECTOR, "score", "decision"], Thresholds())
        quiet.append({column.column: column.values for column in found})
    for number in range(TRAIN[0] + 2, CALIBRATE[-1] + 1):
        statistics = performance(world.matured_before(number), replicates=2).statistics
        for name, estimate in statistics.items():
            # the model saw the training weeks: only what the labels say alone is fair there
            if number - 1 in CALIBRATE or name in ("fraud_amount", "fraud_rate"):
                baseline.setdefault(name, []).append(estimate.value)
    return Judge(trained.model, decide_at, gains(trained), reference, calibrate(quiet), baseline)


def report_of(world: World, judge: Judge, number: int, out: Path) -> DriftResult:
    """The report at the end of a week."""
    return drift_report(
        judge.reference, world.week(number), out / f"{number:03d}", week=f"week {number}", features=list(VECTOR),
        labelled=world.matured_before(number), baseline=judge.baseline, thresholds=judge.limits,
        importance=judge.importance, decide_at=judge.thresholds, evidently=False,
    )  # fmt: skip


def exam(work: Path, judge: Judge, kinds: Sequence[str], say: Any) -> dict[str, Any]:
    """Quiet weeks, then every kind of drift."""
    alarms: list[dict[str, Any]] = []
    before_change: dict[str, list[float]] = {}
    quiet = World(work / "quiet", judge.model, judge.thresholds)
    for number in QUIET:
        result = report_of(quiet, judge, number, work / "reports" / "quiet")
        say(f"quiet week {number}: {result.verdict.action}  {'; '.join(result.verdict.changed[:2])}")
        learn(judge.baseline, result)
        if number < CHANGE:
            before_change = {name: list(values) for name, values in judge.baseline.items()}
        if result.verdict.action != "nothing":
            alarms.append(
                {"week": number, "action": result.verdict.action, "why": result.verdict.changed[:3]}
            )
    drifts = []
    for kind in kinds:
        world = World(work / kind, judge.model, judge.thresholds)
        reports: list[dict[str, Any]] = []
        examined = replace(judge, baseline={name: list(values) for name, values in before_change.items()})
        for number in WATCHED:
            result = report_of(world, examined, number, work / "reports" / kind)
            learn(examined.baseline, result)
            reports.append(
                {
                    "week": number,
                    "action": result.verdict.action,
                    "changed": result.verdict.changed[:4],
                    "features": result.drifted_features[:8],
                }
            )
            say(f"{kind}, week {number}: {result.verdict.action}  {'; '.join(result.verdict.changed[:2])}")
        first = next((place for place, report in enumerate(reports) if report["action"] != "nothing"), None)
        reason = "; ".join(reports[first]["changed"][:2]) if first is not None else why_not(kind)
        drifts.append(
            {
                "kind": kind,
                "detected": first is not None,
                "weeks_late": first,
                "reason": reason,
                "reports": reports,
            }
        )
    return {
        "drifts": drifts,
        "quiet_weeks": len(QUIET),
        "false_alarm_weeks": len(alarms),
        "false_alarms": alarms,
    }


def learn(baseline: dict[str, list[float]], result: DriftResult) -> None:
    """Add a week's statistics to what is usual, but those that the report called moved."""
    moved = {signal.name for signal in result.performance if signal.beyond}
    for name, estimate in (result.matured.statistics if result.matured else {}).items():
        if name not in moved:
            baseline.setdefault(name, []).append(estimate.value)


def why_not(kind: str) -> str:
    """Why a drift could not be seen, as far as is known."""
    if kind in ("new_fraud_type", "halved_attacks"):
        return "it changes a few dozen frauds a week: too few have a label, within the interval of their statistics"
    return "every column stayed within the limits that quiet weeks set"


def speed(say: Any) -> dict[str, Any]:
    """Seconds and memory of a full report (Evidently included): 100k against 50k, then 1M rows."""
    found = {}
    for rows in (50_000, 1_000_000):
        code = f"from benchmarks.drift import speed_of; print(speed_of({rows}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found[str(rows)] = json.loads(done.stdout.strip().splitlines()[-1].replace("'", '"'))
        say(f"report of {rows:,} rows: {found[str(rows)]}")
    return found


def speed_of(rows: int, columns: int = 42) -> dict[str, float]:
    """One report of `rows` current rows against 100,000, in this process."""
    import tempfile

    generator = np.random.default_rng(0)

    def frame(count: int) -> pd.DataFrame:
        made = pd.DataFrame({f"feature_{i}": generator.lognormal(1, 1, count) for i in range(columns)})
        made["score"] = generator.beta(0.3, 30, count)
        made["event_timestamp"] = pd.Timestamp(START, tz="UTC") + pd.to_timedelta(
            np.sort(generator.random(count)) * 7, "D"
        )
        return made

    reference, current = frame(100_000), frame(rows)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = drift_report(reference, current, Path(folder))
        size = result.report.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak_gib": round(peak, 2),
        "page_mb": round(size, 2),
    }


def table(found: dict[str, Any]) -> str:
    """The result as a page."""
    rows = [
        [d["kind"].replace("_", " "), page.tag("good", "found") if d["detected"] else page.tag("bad", "missed"),
         "–" if d["weeks_late"] is None else str(d["weeks_late"]), d["reason"]]
        for d in found["drifts"]
    ]  # fmt: skip
    body = (
        "<h1>Does the drift report find known drift?</h1>"
        f"<p>{found['quiet_weeks']} quiet weeks: {found['false_alarm_weeks']} false alarms. Weeks late: 0 is the first report "
        "after the change.</p>"
        + page.table(["Drift", "", "Weeks late", "What the report said first"], rows, numeric=(2,))
    )
    return page.document("Known drift", body)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is missing, hold the exam, write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=settings().home / "bench" / "drift", help="folder of the worlds"
    )
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--no-speed", action="store_true")
    chosen = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(text, flush=True)

    change = (START + timedelta(weeks=CHANGE)).isoformat()
    say("the quiet world")
    weeks_of(chosen.work / "quiet", TRAIN[0], QUIET[-1], DAYS)
    for kind in chosen.kinds:
        say(f"the world with {kind}")
        last = WATCHED[-1]
        weeks_of(chosen.work / kind, CHANGE - 1, last, DAYS, [f"{kind}@{change}"])
    found = exam(chosen.work, prepare(chosen.work / "quiet"), chosen.kinds, say)
    if not chosen.no_speed:
        found["speed"] = speed(say)
    out = settings().results / "bench"
    page.write(out / "drift.json", json.dumps(found, indent=1) + "\n")
    page.write(out / "drift.html", table(found))
    say(f"{found['false_alarm_weeks']} false alarms in {found['quiet_weeks']} quiet weeks")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
