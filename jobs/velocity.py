"""Whether serving saw what training will: the last hours of decisions, sampled and rebuilt.

    python -m jobs.velocity [--until T] [--hours 6] [--sample 20000]

    merge the arrival log's small files  →  velocity log of these days  →  gate it  →  parity of a sample

Part of the 6-hour schedule. The velocity log is what point-in-time joins read, so it is built and
gated here, before anything is compared with it. Exit code 1 when a gate blocks or a row differs
without a known cause, 2 when there is no decision log; hours without a decision are no failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from fraud.features.entities import CUT_INTERVAL, ENTITIES
from monitoring import gauges
from monitoring.decisions import DecisionLogError, read_decisions
from monitoring.gates.checks import GateBlockedError
from monitoring.gates.run import default_history, publish_state, run_gate
from monitoring.parity.comparison import ParityReport, compare
from monitoring.parity.report import to_prometheus, write_report
from stores.decisions import decisions_folder
from stores.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SAMPLE: Final = 20_000


def history(
    start: datetime, end: datetime, *, spark: SparkSession | None = None, docs: Path | None = None
) -> int:
    """Bring the velocity log up to `end` from the arrivals since `start`; return the states written.

    Raises `GateBlockedError` if a day's states do not pass their gate.
    """
    from feature_repo.velocity_log import build_velocity_log
    from streaming.ingest.compact import compact

    compact(settings().lake)
    written = sum(build_velocity_log(start, end, spark).values())
    blocked = []
    for entity in ENTITIES:
        for day in _days(start, end):
            folder = settings().lake / "velocity" / entity.name / f"date={day:%Y-%m-%d}"
            if folder.exists():
                result = run_gate(
                    "velocity", folder, entity=entity.name, as_of=max(end, datetime.now(UTC)),
                    history=default_history(), docs=docs,
                )  # fmt: skip
                blocked += [result] if result.blocked else []
    publish_state("velocity", bool(blocked))
    if blocked:
        raise GateBlockedError("\n".join(result.text() for result in blocked))
    return written


def sampled(decisions: pa.Table, most: int) -> pa.Table:
    """At most `most` of the rows, drawn evenly, the same ones for the same table."""
    if decisions.num_rows <= most:
        return decisions
    drawn = np.random.default_rng(decisions.num_rows).choice(decisions.num_rows, most, replace=False)
    return decisions.take(pa.array(np.sort(drawn)))


def skew(
    start: datetime, end: datetime, most: int = SAMPLE, spark: SparkSession | None = None
) -> ParityReport | None:
    """Served vectors of the decisions from `start` to `end`, held against a rebuild; None without decisions.

    Publishes the parity gauges. Raises `DecisionLogError` if there is no decision log.
    """
    from stores.declared import served_vector
    from training.dataset import rebuild

    decisions = read_decisions(decisions_folder(settings().home), start=start, end=end)
    served = sampled(decisions, most)
    if not served.num_rows:
        return None
    report = compare(served, rebuild(served, spark), served_vector(), arrivals=decisions)
    write_report(report, settings().results / "parity")
    gauges.publish("parity", to_prometheus(report))
    return report


def _days(start: datetime, end: datetime) -> list[datetime]:
    first = start.replace(hour=0, minute=0, second=0, microsecond=0)
    return [first + timedelta(days=day) for day in range((end - first) // timedelta(days=1) + 1)]


def main(arguments: Sequence[str] | None = None) -> int:
    """One run; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m jobs.velocity", description="sampled parity")
    parser.add_argument("--until", type=datetime.fromisoformat, help="end of the hours, with offset")
    parser.add_argument("--hours", type=float, default=CUT_INTERVAL / timedelta(hours=1))
    parser.add_argument("--sample", type=int, default=SAMPLE, help="most decisions to rebuild")
    parser.add_argument("--no-docs", action="store_true", help="do not build Data Docs")
    chosen = parser.parse_args(arguments)
    end = chosen.until or datetime.now(UTC)
    if end.tzinfo is None:
        parser.error("--until should carry an offset, such as 2026-03-01T06:00:00Z")
    start = end - timedelta(hours=chosen.hours)
    try:
        written = history(start, end, docs=None if chosen.no_docs else settings().results / "gates")
        report = skew(start, end, chosen.sample)
    except (GateBlockedError, DecisionLogError) as error:
        print(f"skew: {error}", file=sys.stderr)
        return 2 if isinstance(error, DecisionLogError) else 1
    print(f"velocity log: {written:,} states of the days up to {end.isoformat()}")
    if report is None:
        print("no decision in these hours, nothing to compare")
        return 0
    print(
        f"{report.rows:,} of these hours' decisions rebuilt, {report.mismatched_rows:,} differ: "
        f"{', '.join(f'{name} {rows}' for name, rows in report.causes.items()) or 'no cause needed'}"
    )
    return 1 if report.failed(allowed_share=1.0) else 0


if __name__ == "__main__":
    raise SystemExit(main())
