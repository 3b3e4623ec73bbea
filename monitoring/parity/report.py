"""Parity: the vectors that serving used, against what a point-in-time join rebuilds.

    python -m monitoring.parity [--decisions <log>] [--start T] [--end T] [--limit ROWS] [--allow SHARE]

Every value is *exact* (equal, or missing on both sides), *within float noise* (1e-9 relative) or
*different*. A row with a different value is mismatched, and its cause is named:

- ``timeout``, ``stale``, ``missing``: serving said so itself for a view the value comes from;
- ``late``: serving saw a state that the entity's previous transaction had not reached yet;
- ``withdrawn``: serving counted a payment that was under way and then refused;
- ``unexplained``: none of these, so a defect.

Writes ``parity.json`` and ``parity.html``. Exit code 1 if more than the allowed share of rows is
mismatched or any row is unexplained.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from monitoring import gauges
from monitoring.decisions import DecisionLogError, read_decisions
from monitoring.page import write
from monitoring.parity import page as parity_page
from monitoring.parity.comparison import ParityError, ParityReport, compare
from stores.decisions import decisions_folder
from stores.settings import settings


def write_report(report: ParityReport, out: Path) -> tuple[Path, Path]:
    """Write parity.json and parity.html into `out`; return their paths."""
    content = json.dumps(asdict(report), indent=1, default=str).replace("NaN", "null")
    return write(out / "parity.json", content + "\n"), write(out / "parity.html", parity_page.page_of(report))


def to_prometheus(report: ParityReport) -> str:
    """The report's gauges."""
    unexplained = float(report.causes.get("unexplained", 0) + report.unmatched)
    return (
        gauges.text("tollgate_parity_rows", "Served vectors that were rebuilt", [({}, float(report.rows))])
        + gauges.text(
            "tollgate_parity_mismatched_share",
            "Share of served vectors that differ from the rebuild",
            [({}, report.mismatched_share)],
        )
        + gauges.text(
            "tollgate_parity_unexplained_rows", "Rows that differ without a known cause", [({}, unexplained)]
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison over the decision log; see the module's text."""
    from stores.declared import served_vector
    from training.dataset import rebuild

    parser = argparse.ArgumentParser(
        prog="python -m monitoring.parity", description="served vectors against a rebuild"
    )
    parser.add_argument(
        "--decisions", type=Path, default=decisions_folder(settings().home), help="decision log"
    )
    parser.add_argument("--start", type=datetime.fromisoformat, help="first event time, with offset")
    parser.add_argument("--end", type=datetime.fromisoformat, help="event time to stop before, with offset")
    parser.add_argument("--limit", type=int, default=200_000, help="most rows (the last ones)")
    parser.add_argument(
        "--allow", type=float, default=0.0, help="share of rows that may differ for a known cause"
    )
    parser.add_argument(
        "--out", type=Path, default=settings().results / "parity", help="folder of the reports"
    )
    chosen = parser.parse_args(arguments)
    try:
        served = read_decisions(chosen.decisions, start=chosen.start, end=chosen.end)
        served = served.slice(max(len(served) - chosen.limit, 0))
        report = compare(served, rebuild(served), served_vector())
    except (DecisionLogError, ParityError) as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    paths = write_report(report, chosen.out)
    gauges.publish("parity", to_prometheus(report))
    print(
        f"parity: {report.rows:,} rows x {report.features} features, {report.mismatched_rows:,} rows differ "
        f"({', '.join(f'{k} {v}' for k, v in report.causes.items()) or 'no cause needed'}), largest difference "
        f"{report.max_abs_diff:g}, worst feature {report.worst_feature or '-'}\n{paths[1]}"
    )
    return 1 if report.failed(chosen.allow) else 0
