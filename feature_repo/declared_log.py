"""The log of declared stream views: every state, from when it was visible, rebuilt from the lake's arrivals.

As the velocity log does for the standard entities, in the same files and with the same guarantees: a range of
arrival days continues from the states before it, and replaces its own rows when it is run again. One view can
be rebuilt without touching the others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np
import pyarrow as pa

from feature_repo.declared_columns import declared_of
from feature_repo.velocity_replay import BEFORE_ALL, TIMESTAMP, arrival_day, log_schema, write_log
from fraud.declared.declaration import DECISION, EVENT_TEXTS, encode
from fraud.declared.seen import DeclaredSeen
from fraud.declared.state import DeclaredState
from fraud.state.observation import transaction_key, use_identity
from stores.declared import Declared, state_feature
from stores.keys import open_identity
from stores.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_EPOCH: Final = date(1970, 1, 1)
_EVENT: Final = (*EVENT_TEXTS, "latitude", "longitude", "amount_reference", "attributes", DECISION)
_CARRIED: Final = ("transaction_id", "event_ms", "created_us", "ingest_seq", "arrived")
_OBSERVED: Final = (
    "entity int, shard int, key string, record binary, event_ms bigint, created_us bigint, "
    "ingest_seq bigint, arrived int, transaction_id string, seed binary"
)
_OBSERVED_SCHEMA: Final = pa.schema(
    [
        ("entity", pa.int32()), ("shard", pa.int32()), ("key", pa.string()), ("record", pa.binary()),
        ("event_ms", pa.int64()), ("created_us", pa.int64()), ("ingest_seq", pa.int64()),
        ("arrived", pa.int32()), ("transaction_id", pa.string()), ("seed", pa.binary()),
    ]
)  # fmt: skip
_REPORT: Final = "entity int, arrived int, date string, file string, rows bigint"
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class LoggedView:
    """A declared view as its log names it."""

    name: str
    key: str

    @property
    def state_feature(self) -> str:
        return state_feature(self.name)


def logged_views(own: Declared) -> tuple[LoggedView, ...]:
    """The declared stream views, in order."""
    return tuple([LoggedView(layout.view, layout.key) for layout in own.layouts])


def build_declared_log(
    moves: DataFrame, own: Declared, root: Path, days: tuple[date, date], shards: int, chosen: Sequence[int]
) -> dict[str, int]:
    """Log the states of the views at the places `chosen` after every arrival of `moves`; rows by view.

    `moves` are transactions that arrived on the `days`, with their hashed times (`velocity_log`).
    """
    spark, views = moves.sparkSession, logged_views(own)
    document = encode(own.declarations)
    rows = moves.select(*_EVENT, *_CARRIED).mapInArrow(
        _observe(document, tuple(chosen), shards, open_identity(settings())), _OBSERVED
    )
    since = [_known_from(root, views[place], days[0]) for place in range(len(views))]
    for place in chosen:
        seeds = _seeds(spark, root, place, views[place], days[0], shards)
        rows = rows.unionByName(seeds) if seeds is not None else rows
    staging = root / "velocity" / f".staging-declared-{os.getpid()}"
    try:
        work = _worker(document, tuple(since), str(staging))
        done = rows.groupBy("entity", "shard").applyInArrow(work, _REPORT).collect()
        return publish(done, [views[place] for place in chosen], views, root, staging, days)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(
    done: list[Any], chosen: Sequence[LoggedView], views: Sequence[LoggedView], root: Path, staging: Path,
    days: tuple[date, date],
) -> dict[str, int]:  # fmt: skip
    """Move finished files into the log; files of the same arrival days that are no more go last."""
    written = {view.name: 0 for view in chosen}
    fresh: set[Path] = set()
    for row in done:
        name = views[row["entity"]].name
        target = root / "velocity" / name / f"date={row['date']}" / row["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        (staging / name / row["date"] / row["file"]).replace(target)
        fresh.add(target)
        written[name] += row["rows"]
    for view in chosen:
        for path in (root / "velocity" / view.name).glob("date=*/arrived-*.parquet"):
            if path not in fresh and days[0] <= arrival_day(path) <= days[1]:
                path.unlink()
    return written


def _known_from(root: Path, view: LoggedView, first: date) -> int:
    """From which event time on (milliseconds) states that begin on the day `first` know every event."""
    begins = [
        date.fromisoformat(folder.name.removeprefix("date="))
        for folder in (root / "transactions").glob("date=*")
    ]
    logged = any(
        arrival_day(path) < first for path in (root / "velocity" / view.name).glob("date=*/arrived-*.parquet")
    )
    if logged or not begins or min(begins) >= first:
        return 0
    return int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp() * 1000)


def _observe(
    document: bytes, chosen: tuple[int, ...], shards: int, identity: bytes
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What each transaction tells each view, in Spark's workers; `identity` is the key of event identity."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        use_identity(identity)
        for batch in batches:
            yield observed(batch, document, chosen, shards)

    return work


def observed(batch: pa.RecordBatch, document: bytes, chosen: tuple[int, ...], shards: int) -> pa.RecordBatch:
    """One row per transaction and view that it has a key for: what the view's states add."""
    own = declared_of(document)
    found = []
    for row in batch.to_pylist():
        values = own.row_values(row, row[DECISION])
        for place in chosen:
            observer = own.observers[place]
            key = observer.key(values)
            if key is not None:
                hashed = transaction_key(row["transaction_id"])
                record = observer.seen(row["event_ms"], hashed, values).record
                found.append(
                    {
                        "entity": place, "shard": crc32(key.encode()) % shards, "key": key, "record": record,
                        "seed": None, **{name: row[name] for name in _CARRIED},
                    }
                )  # fmt: skip
    return pa.RecordBatch.from_pylist(found, schema=_OBSERVED_SCHEMA)


def _seeds(
    spark: SparkSession, root: Path, place: int, view: LoggedView, first: date, shards: int
) -> DataFrame | None:
    """The newest state per key among days that arrived before `first`, as rows to start from."""
    from pyspark.sql import functions as F

    folder = root / "velocity" / view.name
    files = [str(path) for path in folder.glob("date=*/arrived-*.parquet") if arrival_day(path) < first]
    if not files:
        return None
    schema = f"{view.key} string, event_timestamp timestamp, {view.state_feature} binary"
    newest = (
        spark.read.schema(schema)
        .parquet(*files)
        .groupBy(F.col(view.key).alias("key"))
        .agg(F.max_by(view.state_feature, "event_timestamp").alias("seed"))
    )
    nothing = F.lit(None)
    return newest.select(
        F.lit(place).alias("entity"),
        F.pmod(F.crc32(F.col("key").cast("binary")), F.lit(shards)).cast("int").alias("shard"),
        "key", nothing.cast("binary").alias("record"),
        *[nothing.cast("bigint").alias(name) for name in ("event_ms", "created_us")],
        F.lit(BEFORE_ALL).cast("bigint").alias("ingest_seq"), nothing.cast("int").alias("arrived"),
        nothing.cast("string").alias("transaction_id"), "seed",
    )  # fmt: skip


def _worker(
    document: bytes, since: tuple[int, ...], staging: str
) -> Callable[[tuple[Any, ...], pa.Table], pa.Table]:
    """The function that Spark runs on each (view, shard): replay it in arrival order, write its files."""

    def work(group: tuple[pa.Scalar, ...], table: pa.Table) -> pa.Table:
        place, shard = group[0].as_py(), group[1].as_py()
        return replay_view(document, place, shard, since[place], table, Path(staging))

    return work


def replay_view(
    document: bytes, place: int, shard: int, since: int, table: pa.Table, staging: Path
) -> pa.Table:
    """Replay one shard of one view in arrival order; write its log files, report what they are."""
    own = declared_of(document)
    view = logged_views(own)[place]
    table = table.sort_by(
        [("key", "ascending"), ("ingest_seq", "ascending"), ("transaction_id", "ascending")]
    )
    rows, versions, states = _replay(own, place, since, table)
    at = pa.array(rows, pa.int64())
    known = np.maximum(versions, table.column("created_us").take(at).to_numpy())
    log = pa.table(
        [
            table.column("key").take(at).cast(pa.string()),
            pa.array(versions).cast(TIMESTAMP),
            pa.array(known).cast(TIMESTAMP),
            pa.array(table.column("event_ms").take(at).to_numpy() * 1000).cast(TIMESTAMP),
            table.column("ingest_seq").take(at),
            pa.array(states, pa.binary()),
        ],
        schema=log_schema(view),
    )
    arrived = table.column("arrived").take(at).to_numpy().astype(np.int64)
    return write_log(log, view.name, place, shard, arrived, versions // _DAY_US, staging)


def _replay(
    own: Declared, place: int, since: int, table: pa.Table
) -> tuple[list[int], np.ndarray[Any, np.dtype[np.int64]], list[bytes]]:
    """Rows that changed a state (a repeated transaction does not), versions and packed states."""
    layout = own.layouts[place]
    rows: list[int] = []
    versions: list[int] = []
    states: list[bytes] = []
    current: str | None = None
    state = DeclaredState(layout, since)
    columns = [table.column(name).to_pylist() for name in ("key", "event_ms", "record", "seed")]
    for row, (key, event_ms, record, seed) in enumerate(zip(*columns, strict=True)):
        if key != current:
            current, state = key, DeclaredState(layout, since)
        if seed is not None:
            if int.from_bytes(seed[:8], "little", signed=True) == layout.kind:
                state = DeclaredState.unpack(layout, seed)
            continue
        if state.add(DeclaredSeen(event_ms, record)):
            rows.append(row)
            versions.append(state.version)
            states.append(state.pack())
    return rows, np.array(versions, dtype=np.int64), states
