"""Weeks of a synthetic world as the platform sees them: vectors of the one feature service.

    TOLLGATE_HOME=... python -m benchmarks.drift_weeks --start 2025-01-06 --days 301 --first-week 5 --last-week 42

Generates a dataset (with `--drift KIND@DATE` a changed one), loads it, computes daily profile cuts and
the velocity log, and writes one parquet file of transactions with their vectors for each week into
``<home>/weeks``. With `--train-weeks 5:11` it also builds the training set of those weeks.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from fraud.settings import settings

#: History that profiles look back on.
WARM_UP = timedelta(days=35)


def build(chosen: argparse.Namespace) -> None:
    """Everything from the generator to the weeks' files; a week that is there is left alone."""
    from datasets.load import load
    from datasets.synthetic.drift import Drift
    from datasets.synthetic.generate import Plan, write
    from feature_repo.aggregates.run import run_cuts
    from feature_repo.spark import spark_session
    from feature_repo.store import apply_definitions
    from feature_repo.velocity_log import build_velocity_log
    from training.dataset import build_dataset, rebuild

    home = settings().home
    weeks = range(chosen.first_week, chosen.last_week + 1)
    start = datetime.combine(chosen.start, datetime.min.time(), UTC)
    folder = home / "weeks"
    missing = [week for week in weeks if not (folder / f"{week:03d}.parquet").exists()]
    if not missing and (home / "set" / "manifest.json").exists() >= bool(chosen.train_weeks):
        return
    plan = Plan(
        customers=chosen.customers, days=chosen.days, start=chosen.start, seed=chosen.seed,
        drifts=tuple(Drift.parse(text) for text in chosen.drift),
    )  # fmt: skip
    write(plan, home / "dataset", print)
    load(home / "dataset", settings().lake)
    first, last = start + timedelta(weeks=chosen.first_week), start + timedelta(weeks=chosen.last_week + 1)
    for old in (settings().lake / "transactions").glob("date=*"):
        if not first - WARM_UP <= _day(old) <= last:
            shutil.rmtree(old)
    spark = spark_session("drift weeks")
    days = (last - first).days + 2
    run_cuts([first + timedelta(days=back - 1) for back in range(days)], spark, progress=print)
    print(build_velocity_log(max(first - WARM_UP, start), last, spark))
    apply_definitions()
    if chosen.train_weeks:
        low, high = (start + timedelta(weeks=int(text)) for text in chosen.train_weeks.split(":"))
        print(build_dataset(low, high, as_of=high, out=home / "set", spark=spark))
    folder.mkdir(parents=True, exist_ok=True)
    lake = ds.dataset(str(settings().lake / "transactions"), format="parquet")
    for week in missing:
        low = start + timedelta(weeks=week)
        between = (ds.field("event_timestamp") >= low) & (ds.field("event_timestamp") < low + timedelta(weeks=1))
        rows = lake.to_table(filter=between)
        vectors = rebuild(rows, spark=spark).drop_columns(["transaction_id"])
        table = rows
        for name in vectors.column_names:
            table = table.append_column(name, vectors[name].cast(pa.float32()))
        partial = folder / f".{week:03d}.parquet"
        pq.write_table(table, partial, compression="zstd")
        partial.rename(folder / f"{week:03d}.parquet")
        print(f"week {week}: {len(table):,} rows", flush=True)
    for heavy in ("velocity", "profiles"):
        shutil.rmtree(settings().lake / heavy, ignore_errors=True)


def _day(folder: Path) -> datetime:
    return datetime.combine(date.fromisoformat(folder.name.removeprefix("date=")), datetime.min.time(), UTC)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the weeks that are missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift_weeks", description=__doc__)
    parser.add_argument("--start", type=date.fromisoformat, required=True)
    parser.add_argument("--days", type=int, required=True)
    parser.add_argument("--customers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--first-week", type=int, required=True)
    parser.add_argument("--last-week", type=int, required=True)
    parser.add_argument("--drift", nargs="*", default=[], metavar="KIND@DATE")
    parser.add_argument("--train-weeks", metavar="FROM:TO", help="weeks of the training set, TO not included")
    build(parser.parse_args(arguments))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
