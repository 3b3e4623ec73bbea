"""What 6-hour cuts cost: `results/bench/cuts.json`, beside the same aggregates in DuckDB.

    python -m benchmarks.cuts [--data PATH --mapping PATH]

One cut over 30 days of history and a month of cuts, by the Spark job in a running session and by
DuckDB, each on the machine's cores, from the same files to profiles (Spark's are on disk then).
DuckDB computes one cut of each day of the month, and every figure of every profile of those is
compared. `reads` says what a new cut opens of what there is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.cuts_in_duckdb import connect, profiles_in_duckdb
from benchmarks.lakes import BESIDE, MAPPING, CommandError, imported
from fraud.features.entities import ENTITIES, Entity
from stores.lake import parquet_history
from stores.settings import settings

MONTH = timedelta(days=30)
#: Relative and absolute differences that rounding explains: DuckDB sums amounts in floats.
CLOSE, SMALL = 1e-9, 1e-6


@dataclass
class Comparison:
    """Profiles and figures that were compared, and those that differ."""

    profiles: int = 0
    figures: int = 0
    different: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, entity: Entity, cut: datetime, expected: pa.Table) -> None:
        """Hold the stored profiles of `entity` as of `cut` against DuckDB's."""
        from feature_repo.aggregates.run import cut_folder, profile_schema

        files = sorted(cut_folder(entity, cut).glob("*.parquet"))
        tables = [pq.read_table(path, partitioning=None) for path in files]
        found = pa.concat_tables(tables) if tables else profile_schema(entity).empty_table()
        found = found.sort_by(entity.key)
        self.profiles += expected.num_rows
        keys = [table.column(0).combine_chunks() for table in (found, expected)]
        if not keys[0].equals(keys[1]):
            raise ValueError(f"other {entity.name} profiles as of {cut}")
        for name in found.column_names[3:]:
            ours, theirs = (_floats(table.column(name)) for table in (found, expected))
            same = np.isclose(ours, theirs, rtol=CLOSE, atol=SMALL, equal_nan=True)
            self.figures += same.size
            self.different += int((~same).sum())
            if not same.all() and len(self.first) < 5:
                at = int(np.flatnonzero(~same)[0])
                self.first.append(f"{name} as of {cut}: {ours[at]} and {theirs[at]}")


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(column.to_numpy(), dtype=np.float64)


def measure(cuts: Sequence[datetime], compared: Sequence[datetime], lake: Path) -> dict[str, Any]:
    """Compute `cuts` by Spark, `compared` by DuckDB too; seconds, profiles and how they compare."""
    from feature_repo.aggregates.run import run_cuts

    began = time.perf_counter()
    written = run_cuts(cuts)
    seconds = time.perf_counter() - began
    comparison, theirs = Comparison(), 0.0
    base = connect(lake, os.cpu_count() or 1)
    for cut in compared:
        began = time.perf_counter()
        profiles = profiles_in_duckdb(base, cut)
        theirs += time.perf_counter() - began
        for entity in ENTITIES:
            comparison.add(entity, cut, profiles[entity.name])
    figures = {
        "cuts": len(cuts),
        "profiles": sum(written.values()),
        "seconds": round(seconds, 2),
        "seconds_per_cut": round(seconds / len(cuts), 3),
        "duckdb_cuts": len(compared),
        "duckdb_seconds_per_cut": round(theirs / len(compared), 3),
        "compared_profiles": comparison.profiles,
        "compared_figures": comparison.figures,
        "different": comparison.different,
        "equal": comparison.different == 0 and comparison.figures > 0,
    }
    print(f"{len(cuts)} cuts: {figures}", *comparison.first, sep="\n  ", flush=True)
    return figures


def reads(cut: datetime, lake: Path) -> dict[str, Any]:
    """What one cut opens: files and rows of transactions, beside what the lake holds."""
    from feature_repo.aggregates.grid import Grid, cut_number
    from feature_repo.aggregates.read import transactions
    from feature_repo.spark import spark_session

    grid = Grid(cut_number(cut), cut_number(cut))
    opened = transactions(spark_session(), lake, grid, settings().history.label_maturity_days).inputFiles()
    days = parquet_history(lake)
    return {
        "files": len(opened),
        "rows": sum(pq.read_metadata(path.removeprefix("file://")).num_rows for path in opened),
        "lake_files": len(list((lake / "transactions").glob("date=*/*.parquet"))),
        "lake_rows": sum(days.values()),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write results/bench/cuts.json; 1 if any figure differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuts", description=__doc__)
    parser.add_argument("--data", type=Path, default=BESIDE, help="the handbook's transactions, or others")
    parser.add_argument("--mapping", type=Path, default=MAPPING)
    chosen = parser.parse_args(arguments)
    if not chosen.data.is_file():
        parser.error(f"{chosen.data} is not there: give --data (make: DATA=) a file of transactions")
    out = settings().results / "bench" / "cuts.json"
    try:
        lake = imported(settings().home / "bench-handbook" / "lake", chosen.data, chosen.mapping)
    except CommandError as error:
        print(f"cuts: {error}", file=sys.stderr)
        return 1
    os.environ["TOLLGATE_HOME"] = str(lake.home)
    settings.cache_clear()
    from feature_repo.aggregates.grid import CUTS_PER_DAY, cuts_between
    from feature_repo.aggregates.run import run_cuts
    from feature_repo.spark import spark_session

    began = time.perf_counter()
    spark_session("cuts")
    report: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)},
        "spark_start_seconds": round(time.perf_counter() - began, 1),
    }
    last = lake.end - timedelta(hours=6)
    began = time.perf_counter()
    run_cuts([last])  # the first job of a session pays for its compilation
    report["first_in_session_seconds"] = round(time.perf_counter() - began, 2)
    report["one_cut"] = measure([last], [last], settings().lake)
    report["one_cut"]["reads"] = reads(last, settings().lake)
    month = cuts_between(last - MONTH, last)
    report["month"] = measure(month, month[::CUTS_PER_DAY], settings().lake)
    report["equal"] = report["one_cut"]["equal"] and report["month"]["equal"]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"cuts: {out}")
    return 0 if report["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
