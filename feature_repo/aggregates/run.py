"""The Spark job behind batch views: declared aggregates of every entity as of a cut."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.frame import Request, cuts_of, longest_days
from feature_repo.aggregates.grid import CUTS_PER_DAY, INTERVAL_US, Grid, cut_number, cut_time
from feature_repo.aggregates.measured import measured_rows
from feature_repo.aggregates.profile import OF_PEERS, OF_REPORTS, asks, profiles
from feature_repo.aggregates.read import (
    SHARD_ROWS,
    Widths,
    both_of,
    changes,
    is_native,
    peers,
    reports,
    transactions,
    view_rows,
)
from feature_repo.aggregates.views import PROFILES, mark, view_folder
from feature_repo.spark import spark_session
from fraud.declared.declaration import encode
from fraud.declared.figures import BatchView
from fraud.features.entities import Entity
from fraud.features.profiles import BATCH_OF
from stores.declared import batch_views, declared
from stores.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Cuts computed by one job; a longer range is split, so that memory does not grow with it.
BLOCK_CUTS: Final = 31 * CUTS_PER_DAY
_MONTH: Final = 30
_TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
_REPORT: Final = "view int, cut int, file string, rows bigint"
Progress = Callable[[str], None]


def cut_folder(entity: Entity, cut: datetime) -> Path:
    """Where the profiles of `entity` as of `cut` lie."""
    return view_folder(BATCH_OF[entity.name], cut)


def profile_schema(entity: Entity) -> pa.Schema:
    """The columns of a profile file: key, cut, when it becomes visible, features."""
    return view_schema(BATCH_OF[entity.name])


def view_schema(view: BatchView) -> pa.Schema:
    """The columns of a batch view's files: key, cut, when it becomes visible, features."""
    return pa.schema(
        [(view.key, pa.string()), ("event_timestamp", _TIMESTAMP), ("created_timestamp", _TIMESTAMP)]
        + [(figure.name, pa.float64()) for figure in view.figures]
    )


def run_cuts(
    cuts: Iterable[datetime], spark: SparkSession | None = None, progress: Progress | None = None,
    views: Iterable[str] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Compute and store every declared batch view (or those named `views`) as of each cut; rows written
    by folder: the entity's name for the platform's own, the view's for a team's.

    A cut sees what was known before it: transactions and labels by their `created_timestamp`,
    over windows ``[cut - days, cut)`` of event time. Writing a cut again replaces it, with the
    same bytes if nothing new was known. ValueError if a cut is not on the 6-hour grid, or a view is not
    declared.
    """
    numbers = sorted({cut_number(cut) for cut in cuts})
    known = {view.name: view for view in batch_views()}
    chosen = list(known) if views is None else list(views)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such batch view; there are {', '.join(known)}")
    spark = spark or spark_session("aggregates")
    written = dict.fromkeys([known[name].folder for name in chosen], 0)
    for block in _blocks(numbers):
        started = time.monotonic()
        for days, together in _by_reach([known[name] for name in chosen]):
            for name, rows in _run_block(block, days, together, spark).items():
                written[name] += rows
        if progress:
            first, last = f"{cut_time(block[0]):%Y-%m-%d %H:%M}", f"{cut_time(block[-1]):%Y-%m-%d %H:%M}"
            seconds = time.monotonic() - started
            progress(f"profiles as of {first} to {last}: {len(block)} cuts in {seconds:.1f} s")
    return written


def _by_reach(views: Iterable[BatchView]) -> list[tuple[int, list[BatchView]]]:
    """Views by how many days back they look: a year's view makes no other one read a year."""
    found: dict[int, list[BatchView]] = {}
    for view in views:
        reach = max(longest_days(figure.window_ms) for figure in view.figures)
        found.setdefault(max(reach, _MONTH), []).append(view)
    return sorted(found.items())


def _blocks(numbers: list[int]) -> Iterator[list[int]]:
    """Cut numbers in runs that span at most `BLOCK_CUTS`."""
    if numbers:
        for _, block in groupby(numbers, lambda number: (number - numbers[0]) // BLOCK_CUTS):
            yield list(block)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a Python worker needs beyond its shard."""

    views: tuple[BatchView, ...]
    request: Request
    cuts: tuple[int, ...]
    staging: str
    lag: timedelta


def _run_block(
    numbers: list[int], days: int, views: Sequence[BatchView], spark: SparkSession
) -> dict[str, int]:
    chosen = settings()
    grid = Grid(numbers[0], numbers[-1])
    maturity = chosen.history.label_maturity_days
    moves = transactions(spark, chosen.lake, grid, days + maturity)
    shards = 1 + moves.count() // SHARD_ROWS
    others = [changes(spark, chosen.lake, grid, days)]
    if any(asks(view, OF_REPORTS) for view in views):
        others.append(reports(spark, chosen.lake, grid, days + maturity))
    spans = {
        cuts_of(figure.window_ms) for view in views for figure in view.figures if figure.function in OF_PEERS
    }
    staging = chosen.lake / PROFILES / f".staging-{os.getpid()}"
    task = _Task(
        tuple(views),
        Request(grid, maturity * CUTS_PER_DAY, peers(moves, grid, sorted(spans)) if spans else {}),
        tuple(numbers),
        str(staging),
        timedelta(minutes=chosen.history.cut_lag_minutes),
    )
    try:
        rows = _rows(both_of(moves, *others), views, shards)
        done = rows.groupBy("view", "shard").applyInArrow(_worker(task), _REPORT).collect()
        return _publish(done, numbers, views, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _rows(both: DataFrame, views: Sequence[BatchView], shards: int) -> DataFrame:
    widths = Widths.of(views)
    native = {place: view for place, view in enumerate(views) if is_native(view)}
    others = {place: view for place, view in enumerate(views) if place not in native}
    frames = []
    if native:
        frames.append(view_rows(both, native, shards, widths))
    if others:
        frames.append(measured_rows(both, others, shards, widths, encode(declared().declarations)))
    return frames[0] if len(frames) == 1 else frames[0].unionByName(frames[1])


def _worker(task: _Task) -> Callable[[tuple[Any, ...], pa.Table], pa.Table]:
    """The function Spark runs on each shard: write its profile files, report what was written."""

    def work(group: tuple[Any, ...], table: pa.Table) -> pa.Table:
        place, shard = group[0].as_py(), group[1].as_py()
        view = task.views[place]
        schema = view_schema(view)
        names = schema.names[3:]
        done: list[dict[str, Any]] = []
        for block, (keys, active, features) in enumerate(profiles(view, table, task.request)):
            for number in task.cuts:
                column = number - task.request.grid.first
                chosen = np.flatnonzero(active[:, column])
                if not chosen.size:
                    continue
                arrays = [keys.take(pa.array(chosen)), *_stamps(number, chosen.size, task.lag)]
                # Stored as null, not NaN: a missing value must look missing to every reader.
                arrays += [pa.array(features[name][chosen, column], from_pandas=True) for name in names]
                file = f"part-{shard:05d}-{block:05d}.parquet"
                path = Path(task.staging, view.folder, f"{number}", file)
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.table(arrays, schema=schema), path, compression="zstd")
                done.append({"view": place, "cut": number, "file": file, "rows": chosen.size})
        report = pa.schema(
            [("view", pa.int32()), ("cut", pa.int32()), ("file", pa.string()), ("rows", pa.int64())]
        )
        return pa.Table.from_pylist(done, report)

    return work


def _stamps(number: int, rows: int, lag: timedelta) -> tuple[pa.Array, pa.Array]:
    """`event_timestamp` (the cut) and `created_timestamp` (the cut's visibility) columns."""
    cut = np.full(rows, number * INTERVAL_US, dtype=np.int64)
    known = cut + lag // timedelta(microseconds=1)
    return pa.array(cut).cast(_TIMESTAMP), pa.array(known).cast(_TIMESTAMP)


def _publish(
    done: list[Any], numbers: list[int], views: Sequence[BatchView], staging: Path
) -> dict[str, int]:
    """Move finished files to their cut folders; files of an earlier run that are no more go last."""
    written = dict.fromkeys([view.folder for view in views], 0)
    files: dict[tuple[int, int], list[str]] = {}
    for row in done:
        files.setdefault((row["view"], row["cut"]), []).append(row["file"])
        written[views[row["view"]].folder] += row["rows"]
    for place, view in enumerate(views):
        for number in numbers:
            folder = view_folder(view, cut_time(number))
            fresh = files.get((place, number), [])
            if fresh:
                folder.mkdir(parents=True, exist_ok=True)
            for file in fresh:
                (staging / view.folder / f"{number}" / file).replace(folder / file)
            if folder.is_dir():
                for stale in set(folder.glob("*.parquet")) - {folder / file for file in fresh}:
                    stale.unlink()
                mark(view, folder)
    return written
