"""What a training set costs: `results/bench/training_set.json` and a plot beside it.

    python -m benchmarks.training_set [--data PATH --mapping PATH] [--days N] [--only PART ...]

Builds the set of every transaction by `training.dataset`, the same set by a hand-written Spark
query, and compares them row for row; then sets of growing length, a set in which one key has
100,000 rows, and stock Feast as far as it gets in a minute. All of them run in processes of their
own, start of Spark included. `peak_gib` is the proportional memory of driver, JVM and workers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.lakes import BESIDE, MAPPING, CommandError, Lake, command, computed, imported
from embedded.steps import MemoryWatch
from stores.lake import TIMESTAMP, TRANSACTION_SCHEMA, parquet_history, write_transactions
from stores.settings import settings

PARTS = ("ours", "handwritten", "growth", "hot", "stock")
#: Sizes of the growing sets; the last is everything.
GROWTH = (100_000, 300_000, 900_000)
HOT_ROWS, HOT_DAYS = 100_000, 10
#: Stock Feast: rows of the lake, and rows of the one hot key, and how long each may take.
STOCK_ROWS, STOCK_HOT_ROWS, STOCK_LIMIT = (1_000, 10_000, 50_000), (500, 1_000, 2_000), 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """A set that was built: rows, wall seconds, and the largest memory of all its processes."""

    folder: Path
    rows: int
    seconds: float
    peak_gib: float


def build(module: str, lake: Lake, start: datetime, end: datetime, out: Path) -> Run:
    """Run `module` (`training.dataset` or the hand-written query) on ``[start, end)``."""
    shutil.rmtree(out, ignore_errors=True)
    span = ("--from", start.isoformat(), "--to", end.isoformat())
    words = ["-m", module, *span, "--as-of", (lake.end + timedelta(days=30)).isoformat(), "--out", str(out)]
    began = time.perf_counter()
    with MemoryWatch() as memory:
        command(words, lake.environment)
    seconds = time.perf_counter() - began
    rows = sum(pq.read_metadata(path).num_rows for path in out.glob("date=*/*.parquet"))
    print(f"{module}: {rows:,} rows in {seconds:.0f} s, {memory.peak_mib / 1024:.1f} GiB", flush=True)
    return Run(out, rows, seconds, memory.peak_mib / 1024)


def equal_rows(left: Path, right: Path) -> int:
    """How many rows of two sets are equal in every column; both hold a day's rows in one order.

    A missing value may be null or NaN, whatever the writer prefers.
    """
    equal = 0
    for folder in sorted(left.glob("date=*")):
        day = [_day(root / folder.name) for root in (left, right)]
        if day[0].num_rows != day[1].num_rows or set(day[0].column_names) != set(day[1].column_names):
            continue
        same = np.ones(day[0].num_rows, dtype=bool)
        for name in day[0].column_names:
            same &= _same(day[0].column(name), day[1].column(name))
        equal += int(same.sum())
    return equal


def _day(folder: Path) -> pa.Table:
    files = [pq.read_table(path, partitioning=None) for path in sorted(folder.glob("*.parquet"))]
    return pa.concat_tables(files) if files else pa.table({})


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if pa.types.is_floating(left.type):
        values = [column.to_numpy() for column in (left, right)]
        both: np.ndarray[Any, np.dtype[np.bool_]] = (values[0] == values[1]) | (
            np.isnan(values[0]) & np.isnan(values[1])
        )
        return both
    missing = pc.and_(pc.is_null(left), pc.is_null(right))
    found = pc.or_(pc.fill_null(pc.equal(left, right), False), missing)
    return np.asarray(found.to_numpy(), dtype=bool)


def growth(lake: Lake, whole: dict[str, Any], out: Path) -> list[dict[str, float]]:
    """Sets of the last days, so many that they hold about `GROWTH` rows, and the whole."""
    days = parquet_history(lake.home / "lake")
    points = []
    for rows in [rows for rows in GROWTH if rows < whole["rows"]]:
        held, start = 0, lake.end
        for day in sorted(days, reverse=True):
            if held >= rows:
                break
            held, start = held + days[day], datetime(day.year, day.month, day.day, tzinfo=UTC)
        run = build("training.dataset", lake, start, lake.end, out)
        points.append({"rows": run.rows, "seconds": round(run.seconds, 1)})
    return [*points, {"rows": whole["rows"], "seconds": whole["seconds"]}]


def hot_lake(home: Path) -> Lake:
    """A lake whose 100,000 transactions all have one customer, card, merchant and terminal."""
    random = np.random.default_rng(3)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    lake = Lake(home, start, start + timedelta(days=HOT_DAYS))
    first = int(start.timestamp() * 1000)
    event = (first + np.sort(random.integers(0, HOT_DAYS * 86_400_000, HOT_ROWS))) * 1000
    cents = random.integers(100, 50_000, HOT_ROWS)
    columns: dict[str, Any] = {
        "transaction_id": [f"hot-{number}" for number in range(HOT_ROWS)],
        "event_timestamp": pa.array(event).cast(TIMESTAMP),
        "created_timestamp": pa.array(event).cast(TIMESTAMP),
        "amount_minor": cents,
        "amount_reference": cents,
        "ingest_seq": np.arange(HOT_ROWS),
    }
    columns |= {name: ["one"] * HOT_ROWS for name in ("customer_id", "card_id", "merchant_id", "terminal_id")}
    columns |= {"currency": ["USD"] * HOT_ROWS, "channel": ["pos"] * HOT_ROWS}
    table = [columns.get(field.name, pa.nulls(HOT_ROWS, field.type)) for field in TRANSACTION_SCHEMA]
    write_transactions(pa.table(table, names=TRANSACTION_SCHEMA.names), home / "lake", name="hot")
    return computed(lake)


def stock(lake: Lake, start: datetime, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Stock Feast's `get_historical_features` on the first so many rows since `start`."""
    points: list[dict[str, Any]] = []
    for rows in sizes:
        words = ["-m", "benchmarks.stock_feast", "--from", start.isoformat(), "--rows", str(rows)]
        try:
            seconds = float(command(words, lake.environment, STOCK_LIMIT).split()[-1])
            points.append({"rows": rows, "seconds": round(seconds, 1)})
        except (subprocess.TimeoutExpired, CommandError) as error:
            late = isinstance(error, subprocess.TimeoutExpired)
            why = f"not done in {STOCK_LIMIT:.0f} s" if late else str(error).splitlines()[-1][:200]
            points.append({"rows": rows, "seconds": None, "ended": why})
        print(f"stock Feast: {points[-1]}", flush=True)
        if points[-1]["seconds"] is None:
            break
    return points


def plot(report: dict[str, Any], path: Path) -> None:
    """Seconds against rows: ours, the hand-written query, the hot key and stock Feast."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points, style in (
        ("this offline store", report["growth"], "o-"),
        ("hand-written Spark query", [report["handwritten"]], "s"),
        ("one key has every row", [report["hot_key"]], "^"),
        ("stock Feast", report["stock"]["growth"], "x--"),
        ("stock Feast, one key", report["stock"]["hot_key"], "+--"),
    ):
        done = [point for point in points if point["seconds"] is not None]
        if done:
            axes.plot(
                [point["rows"] for point in done], [point["seconds"] for point in done], style, label=name
            )
    axes.set(xscale="log", yscale="log", xlabel="rows of the training set", ylabel="seconds")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)


def measure_whole(lake: Lake, start: datetime, folder: Path, parts: Sequence[str]) -> dict[str, Any]:
    """The set of everything, by us (`ours`), by hand (`handwritten`), or both."""
    figures: dict[str, Any] = {}
    if "ours" in parts:
        whole = build("training.dataset", lake, start, lake.end, folder / "ours")
        figures |= _figures(whole)
    if "handwritten" in parts:
        hand = build("benchmarks.handwritten_set", lake, start, lake.end, folder / "handwritten")
        figures |= {"handwritten": _figures(hand), "equal_rows": equal_rows(folder / "ours", hand.folder)}
    return figures


def _figures(run: Run) -> dict[str, float]:
    return {"rows": run.rows, "seconds": round(run.seconds, 1), "peak_gib": round(run.peak_gib, 2)}


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write results/bench/training_set.json and .png."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_set", description=__doc__)
    parser.add_argument("--data", type=Path, default=BESIDE, help="the handbook's transactions, or others")
    parser.add_argument("--mapping", type=Path, default=MAPPING)
    parser.add_argument("--days", type=int, help="only the last so many days, to try it out")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; the file keeps the others"
    )
    chosen = parser.parse_args(arguments)
    if not chosen.data.is_file():
        parser.error(f"{chosen.data} is not there: give --data (make: DATA=) a file of transactions")
    home = settings().home / "bench-handbook"
    out = settings().results / "bench" / "training_set.json"
    report: dict[str, Any] = (
        json.loads(out.read_text()) if out.exists() and tuple(chosen.only) != PARTS else {}
    )
    report["machine"] = {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)}
    try:
        lake = computed(imported(home / "lake", chosen.data, chosen.mapping))
        start = lake.start if chosen.days is None else lake.end - timedelta(days=chosen.days)
        hot = hot_lake(home / "hot") if {"hot", "stock"} & set(chosen.only) else None
        report |= measure_whole(lake, start, home / "sets", chosen.only)
        if {"seconds", "handwritten"} <= set(report):
            ratio = report["seconds"] / report["handwritten"]["seconds"]
            report["ratio_to_handwritten"] = round(ratio, 2)
        if "growth" in chosen.only:
            report["growth"] = growth(lake, report, home / "sets" / "part")
        if hot is not None and "hot" in chosen.only:
            one = build("training.dataset", hot, hot.start, hot.end, home / "sets" / "hot")
            report["hot_key"] = {"rows": one.rows, "seconds": round(one.seconds, 1)}
        if hot is not None and "stock" in chosen.only:
            report["stock"] = {
                "growth": stock(lake, lake.end - timedelta(days=7), STOCK_ROWS),
                "hot_key": stock(hot, hot.start, STOCK_HOT_ROWS),
            }
    except CommandError as error:
        print(f"training_set: {error}", file=sys.stderr)
        return 1
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    if {"growth", "hot_key", "handwritten", "stock"} <= set(report):
        plot(report, out.with_suffix(".png"))
    print(f"training_set: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
