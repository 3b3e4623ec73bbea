"""What runs in Spark's workers to rebuild the velocity log: states replayed in arrival order."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fraud.features.entities import ENTITIES, TRACKED_FIELDS, Entity
from fraud.state.observation import change_of, observe_values, use_identity
from fraud.state.velocity import VelocityState

_FILE: Final = re.compile(r"arrived-(\d{8})-\d+\.parquet")
#: Orders a state to start from before every arrival.
BEFORE_ALL: Final = -(1 << 63)
TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
_EPOCH: Final = date(1970, 1, 1)
_DAY_US: Final = 86_400_000_000
_FILES: Final = {"entity": pa.int32(), "arrived": pa.int32(), "date": pa.string(), "file": pa.string()}
_REPORT: Final = pa.schema({**_FILES, "rows": pa.int64()})


def arrival_day(path: Path) -> date:
    """The arrival day in the name of a file of the log; ValueError for any other file."""
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not a file of the velocity log; move it away")
    return datetime.strptime(match.group(1), "%Y%m%d").replace(tzinfo=UTC).date()


class Logged(Protocol):
    """What has states in the log: an entity, or a declared view."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def state_feature(self) -> str: ...


def log_schema(entity: Logged) -> pa.Schema:
    """The columns of the log: key, version, known-at, the causing transaction, packed state."""
    return pa.schema(
        [
            (entity.key, pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("created_timestamp", TIMESTAMP),
            ("transaction_timestamp", TIMESTAMP),
            ("ingest_seq", pa.int64()),
            (entity.state_feature, pa.binary()),
        ]
    )


def shard_worker(staging: str, identity: bytes) -> Callable[[tuple[Any, ...], pa.Table], pa.Table]:
    """The function that Spark runs on each (entity, shard).

    It takes the key of event identity along, and no other one: executors need no keyring.
    """

    def work(group: tuple[pa.Scalar, ...], table: pa.Table) -> pa.Table:
        use_identity(identity)
        return replay_shard(group[0].as_py(), group[1].as_py(), table, Path(staging))

    return work


def replay_shard(place: int, shard: int, table: pa.Table, staging: Path) -> pa.Table:
    """Replay one shard of one entity in the order in which payments were known; write its log files, report
    what they are.

    A file holds the states that arrived on one day and carry versions of one date. Its rows
    are ordered by key and known-at, so equal input gives equal bytes. (Two workers may append to the
    event log the other way round: a payment sees those that were known before it, not appended.)
    """
    entity = ENTITIES[place]
    table = table.sort_by(
        [
            ("key", "ascending"),
            ("created_us", "ascending"),
            ("ingest_seq", "ascending"),
            ("transaction_id", "ascending"),
        ]
    )
    rows, versions, states = _replay(entity, place, table)
    at = pa.array(rows, pa.int64())
    # The transaction itself, which was decided with what was known by then, does not see its own update.
    known = np.maximum(versions, table.column("created_us").take(at).to_numpy() + 1)
    log = pa.table(
        [
            table.column("key").take(at).cast(pa.string()),
            pa.array(versions).cast(TIMESTAMP),
            pa.array(known).cast(TIMESTAMP),
            pa.array(table.column("event_ms").take(at).to_numpy() * 1000).cast(TIMESTAMP),
            table.column("ingest_seq").take(at),
            pa.array(states, pa.binary()),
        ],
        schema=log_schema(entity),
    )
    arrived = table.column("arrived").take(at).to_numpy().astype(np.int64)
    return write_log(log, entity.name, place, shard, arrived, versions // _DAY_US, staging)


def _replay(entity: Entity, place: int, table: pa.Table) -> tuple[list[int], np.ndarray, list[bytes]]:
    """Rows that changed a state (a repeated transaction does not), versions and packed states."""
    names = ("key", "event_ms", "amount", "transaction_id", "latitude", "longitude", "seed", "before")
    columns = [table.column(name).to_pylist() for name in names]
    ids, countries = _touched(entity, table)
    rows: list[int] = []
    versions: list[int] = []
    states: list[bytes] = []
    current: str | None = None
    state = VelocityState(entity)
    for row, values in enumerate(zip(*columns, ids, countries, strict=True)):
        key, event_ms, amount, transaction, latitude, longitude, seed, before, touched, country = values
        if key != current:
            current, state = key, VelocityState(entity)
        if seed is not None:
            state = VelocityState.unpack(entity, seed)
            continue
        if before is not None:  # an outcome: another part of this payment counts as spent
            if state.add(change_of(event_ms, transaction, before, amount, touched), place):
                rows.append(row)
                versions.append(state.version)
                states.append(state.pack())
            continue
        seen = observe_values(event_ms, amount, transaction, touched, country, latitude, longitude)
        if state.add(seen, place):
            rows.append(row)
            versions.append(state.version)
            states.append(state.pack())
    return rows, np.array(versions, dtype=np.int64), states


def _touched(entity: Entity, table: pa.Table) -> tuple[list[tuple[str | None, ...]], list[str | None]]:
    """Per row the ids in `ENTITIES` order, and the country; blank where this state does not look."""
    by_field = {
        TRACKED_FIELDS[name]: table.column(f"tracked{index}").to_pylist()
        for index, name in enumerate(entity.tracked)
    }
    blank: list[str | None] = [""] * table.num_rows
    ids = list(zip(*[by_field.get(other.key, blank) for other in ENTITIES], strict=True))
    return ids, by_field.get("country", [None] * table.num_rows)


def write_log(
    log: pa.Table, name: str, place: int, shard: int, arrived: np.ndarray, dates: np.ndarray, staging: Path
) -> pa.Table:
    """Write a shard's rows as files by arrival day and date of their versions; report what they are."""
    done: list[dict[str, Any]] = []
    order = np.lexsort((dates, arrived))
    arrived, dates = arrived[order], dates[order]
    starts = np.flatnonzero(np.diff(arrived, prepend=-1) | np.diff(dates, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        day = f"{_EPOCH + timedelta(days=int(dates[start])):%Y-%m-%d}"
        file = f"arrived-{_EPOCH + timedelta(days=int(arrived[start])):%Y%m%d}-{shard:05d}.parquet"
        path = staging / name / day / file
        path.parent.mkdir(parents=True, exist_ok=True)
        # States hardly repeat: a dictionary would only be built to be thrown away.
        pq.write_table(
            log.take(pa.array(order[start:end])),
            path,
            compression="zstd",
            use_dictionary=[log.schema.names[0]],
        )
        done.append(
            {
                "entity": place,
                "arrived": int(arrived[start]),
                "date": day,
                "file": file,
                "rows": int(end - start),
            }
        )
    return pa.Table.from_pylist(done, _REPORT)
