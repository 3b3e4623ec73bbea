"""The Spark job behind the profile views: as-of-cut aggregates of every entity."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.grid import CUTS_PER_DAY, INTERVAL_US, Grid, cut_number, cut_time
from feature_repo.aggregates.profile import Request, profiles
from feature_repo.aggregates.read import SHARD_ROWS, changes, entity_rows, peers, reports, transactions
from feature_repo.spark import spark_session
from fraud.features.entities import ENTITIES, Entity
from fraud.features.profiles import PROFILE_FEATURES
from stores.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Cuts computed by one job; a longer range is split, so that memory does not grow with it.
BLOCK_CUTS: Final = 31 * CUTS_PER_DAY
PROFILES: Final = "profiles"
_TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
_REPORT: Final = "entity int, cut int, file string, rows bigint"
Progress = Callable[[str], None]


def cut_folder(entity: Entity, cut: datetime) -> Path:
    """Where the profiles of `entity` as of `cut` lie."""
    return settings().lake / PROFILES / entity.name / f"cut={cut:%Y%m%dT%H%M%S}"


def profile_schema(entity: Entity) -> pa.Schema:
    """The columns of a profile file: key, cut, when it becomes visible, features."""
    return pa.schema(
        [(entity.key, pa.string()), ("event_timestamp", _TIMESTAMP), ("created_timestamp", _TIMESTAMP)]
        + [(feature.name, pa.float64()) for feature in PROFILE_FEATURES[entity.name]]
    )


def run_cuts(
    cuts: Iterable[datetime], spark: SparkSession | None = None, progress: Progress | None = None
) -> dict[str, int]:
    """Compute and store the profiles of every entity as of each cut; rows written by entity.

    A cut sees what was known before it: transactions and labels by their `created_timestamp`,
    over windows ``[cut - days, cut)`` of event time. Writing a cut again replaces it, with the
    same bytes if nothing new was known. ValueError if a cut is not on the 6-hour grid.
    """
    numbers = sorted({cut_number(cut) for cut in cuts})
    spark = spark or spark_session("aggregates")
    written = dict.fromkeys([entity.name for entity in ENTITIES], 0)
    for block in _blocks(numbers):
        started = time.monotonic()
        for name, rows in _run_block(block, spark).items():
            written[name] += rows
        if progress:
            first, last = f"{cut_time(block[0]):%Y-%m-%d %H:%M}", f"{cut_time(block[-1]):%Y-%m-%d %H:%M}"
            seconds = time.monotonic() - started
            progress(f"profiles as of {first} to {last}: {len(block)} cuts in {seconds:.1f} s")
    return written


def _blocks(numbers: list[int]) -> Iterator[list[int]]:
    """Cut numbers in runs that span at most `BLOCK_CUTS`."""
    if numbers:
        for _, block in groupby(numbers, lambda number: (number - numbers[0]) // BLOCK_CUTS):
            yield list(block)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a Python worker needs beyond its shard."""

    request: Request
    cuts: tuple[int, ...]
    staging: str
    lag: timedelta


def _run_block(numbers: list[int], spark: SparkSession) -> dict[str, int]:
    chosen = settings()
    grid = Grid(numbers[0], numbers[-1])
    moves = transactions(spark, chosen.lake, grid, chosen.history.label_maturity_days)
    shards = 1 + moves.count() // SHARD_ROWS
    told = reports(spark, chosen.lake, grid, chosen.history.label_maturity_days)
    staging = chosen.lake / PROFILES / f".staging-{os.getpid()}"
    task = _Task(
        Request(grid, chosen.history.label_maturity_days * CUTS_PER_DAY, peers(moves, grid)),
        tuple(numbers),
        str(staging),
        timedelta(minutes=chosen.history.cut_lag_minutes),
    )
    try:
        done = (
            entity_rows(moves, told.unionByName(changes(spark, chosen.lake, grid)), shards)
            .groupBy("entity", "shard")
            .applyInArrow(_worker(task), _REPORT)
            .collect()
        )
        return _publish(done, numbers, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _worker(task: _Task) -> Callable[[tuple[Any, ...], pa.Table], pa.Table]:
    """The function Spark runs on each shard: write its profile files, report what was written."""

    def work(group: tuple[Any, ...], table: pa.Table) -> pa.Table:
        place, shard = group[0].as_py(), group[1].as_py()
        entity = ENTITIES[place]
        schema = profile_schema(entity)
        names = schema.names[3:]
        done: list[dict[str, Any]] = []
        for block, (keys, active, features) in enumerate(profiles(entity, table, task.request)):
            for number in task.cuts:
                column = number - task.request.grid.first
                chosen = np.flatnonzero(active[:, column])
                if not chosen.size:
                    continue
                arrays = [keys.take(pa.array(chosen)), *_stamps(number, chosen.size, task.lag)]
                # Stored as null, not NaN: a missing value must look missing to every reader.
                arrays += [pa.array(features[name][chosen, column], from_pandas=True) for name in names]
                file = f"part-{shard:05d}-{block:05d}.parquet"
                path = Path(task.staging, entity.name, f"{number}", file)
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.table(arrays, schema=schema), path, compression="zstd")
                done.append({"entity": place, "cut": number, "file": file, "rows": chosen.size})
        report = pa.schema(
            [("entity", pa.int32()), ("cut", pa.int32()), ("file", pa.string()), ("rows", pa.int64())]
        )
        return pa.Table.from_pylist(done, report)

    return work


def _stamps(number: int, rows: int, lag: timedelta) -> tuple[pa.Array, pa.Array]:
    """`event_timestamp` (the cut) and `created_timestamp` (the cut's visibility) columns."""
    cut = np.full(rows, number * INTERVAL_US, dtype=np.int64)
    known = cut + lag // timedelta(microseconds=1)
    return pa.array(cut).cast(_TIMESTAMP), pa.array(known).cast(_TIMESTAMP)


def _publish(done: list[Any], numbers: list[int], staging: Path) -> dict[str, int]:
    """Move finished files to their cut folders; files of an earlier run that are no more go last."""
    written = dict.fromkeys([entity.name for entity in ENTITIES], 0)
    files: dict[tuple[int, int], list[str]] = {}
    for row in done:
        files.setdefault((row["entity"], row["cut"]), []).append(row["file"])
        written[ENTITIES[row["entity"]].name] += row["rows"]
    for place, entity in enumerate(ENTITIES):
        for number in numbers:
            folder = cut_folder(entity, cut_time(number))
            fresh = files.get((place, number), [])
            if fresh:
                folder.mkdir(parents=True, exist_ok=True)
            for file in fresh:
                (staging / entity.name / f"{number}" / file).replace(folder / file)
            if folder.is_dir():
                for stale in set(folder.glob("*.parquet")) - {folder / file for file in fresh}:
                    stale.unlink()
    return written
