"""What a gate costs: `results/bench/gates.json`.

    python -m benchmarks.gates [--rows 1000000]

One batch of synthetic transactions, written as the lake keeps them, through the raw gate on pandas and on
Spark, each in a process of its own. Seconds are the gate's own; `start_s` is what the process needs
before it (imports, and for Spark the JVM).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from stores.settings import settings

START: Final = date(2025, 1, 6)
ROWS_A_CUSTOMER_DAY: Final = 1.1


def batch(rows: int, home: Path) -> Path:
    """At least `rows` transactions in one parquet file of the lake's layout."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from datasets.load import load
    from datasets.synthetic.generate import Plan, write

    days = 30
    write(
        Plan(customers=int(rows / days / ROWS_A_CUSTOMER_DAY), days=days, start=START, seed=7),
        home / "dataset",
        lambda _: None,
    )
    load(home / "dataset", home / "lake")
    files = sorted((home / "lake" / "transactions").rglob("*.parquet"))
    table = pa.concat_tables([pq.ParquetFile(path).read() for path in files])
    target = home / "batch" / "transactions.parquet"
    target.parent.mkdir()
    pq.write_table(table.slice(0, rows), target)
    return target


def measure_gate(path: Path, engine: str) -> dict[str, Any]:
    """One gate over the batch, in this process."""
    began = time.monotonic()
    from monitoring.gates.run import quiet_expectations, run_gate

    quiet_expectations()
    if engine == "spark":
        from feature_repo.spark import spark_session

        spark_session("gates")
    started = time.monotonic() - began
    as_of = datetime.combine(START, datetime.min.time(), UTC) + timedelta(days=60)
    result = run_gate("raw", path, engine="spark" if engine == "spark" else "pandas", as_of=as_of)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "rows": result.rows, "checks": result.checks, "seconds": round(result.seconds, 1),
        "start_s": round(started, 1), "peak_gib": round(peak, 2), "blocked": result.blocked,
        "found": [failure.what for failure in result.failures],
    }  # fmt: skip


def main() -> int:
    """Make the batch, measure both engines, write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gates", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--of", nargs=2, metavar=("PATH", "ENGINE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.of:
        print(json.dumps(measure_gate(Path(chosen.of[0]), chosen.of[1])))
        return 0
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = batch(chosen.rows, Path(folder))
        for engine in ("pandas", "spark"):
            command = [sys.executable, "-m", "benchmarks.gates", "--of", str(path), engine]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[engine] = json.loads(done.stdout.strip().splitlines()[-1])
            print(engine, found[engine], flush=True)
    out = settings().results / "bench" / "gates.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
