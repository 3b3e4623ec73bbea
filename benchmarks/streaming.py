"""The figures of the velocity flow: results/bench/streaming.json, every ratio from one run.

    python -m benchmarks.streaming [--data PATH --mapping PATH] [--only flow sink freshness state backfill]

The producer, Redis and the flow share the machine. Without --data the history of the backfill is a
synthetic one. What the flow's features are beside the oracle's is in results/bench/velocity_proof.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.streaming_backfill import measure_backfill
from benchmarks.streaming_flow import measure_flow
from benchmarks.streaming_freshness import measure_freshness
from benchmarks.streaming_sink import measure_sink
from benchmarks.streaming_state import measure_state
from embedded.processes import stop_on_sigterm
from stores.settings import REPOSITORY, settings

_PARTS = ("flow", "sink", "freshness", "state", "backfill")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="events of a throughput run")
    parser.add_argument("--repeats", type=int, default=6, help="throughput runs of one and of two processes")
    parser.add_argument("--seconds", type=int, default=60, help="length of the freshness run")
    parser.add_argument("--rate", type=int, default=1_000, help="events a second of the freshness run")
    parser.add_argument("--data", type=Path, help="history for the backfill (default: a synthetic one)")
    parser.add_argument(
        "--mapping", type=Path, default=REPOSITORY / "datasets" / "mappings" / "handbook.yaml"
    )
    parser.add_argument("--days", type=int, help="take only so many days of the history")
    parser.add_argument(
        "--proof-rows", type=int, default=100_000, help="transactions whose features are held to the oracle"
    )
    parser.add_argument(
        "--only", nargs="+", choices=_PARTS, default=_PARTS, help="parts to measure; others stay"
    )
    chosen = parser.parse_args()
    stop_on_sigterm()
    path = settings().results / "bench" / "streaming.json"
    report = json.loads(path.read_text()) if path.exists() and set(chosen.only) != set(_PARTS) else {}
    wrong = False

    def keep() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")

    report["machine"] = {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)}
    if "flow" in chosen.only:
        report.update(measure_flow(chosen.events, chosen.repeats))
        keep()
    if "sink" in chosen.only:
        report["sink"] = measure_sink(30, 5)
        keep()
    if "freshness" in chosen.only:
        report["freshness"] = measure_freshness(chosen.rate, chosen.seconds)
        keep()
    if "state" in chosen.only:
        report["state"] = measure_state()
    if "backfill" in chosen.only:
        for name, figures in measure_backfill(chosen.data, chosen.mapping, chosen.days, chosen.proof_rows):
            if name == "backfill":
                report["backfill"] = figures
                keep()
            wrong = wrong or not figures.get("equal_bytes", True) or bool(figures.get("wrong"))
    keep()
    print(json.dumps(report, indent=2))
    return int(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
