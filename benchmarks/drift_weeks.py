"""Weeks of a synthetic world as serving would see them: one vector for each transaction.

    TOLLGATE_HOME=... python -m benchmarks.drift_weeks --start 2025-01-06 --days 301 --first-week 5 --last-week 42

Generates a dataset (with `--drift KIND@DATE` a changed one), loads it and computes a profile cut for each
day with the platform's Spark job. Velocity states are then kept in this process, by the state class of the
stream, and vectors finalised by the function that serves them; each week becomes one parquet file in
``<home>/weeks``. What is done already is left alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from fraud.features.entities import ENTITIES, PROFILE_TTL
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES, VECTOR
from fraud.features.on_demand import transaction_matrix
from fraud.features.profiles import SERVED_PROFILES
from fraud.features.request import request_columns
from fraud.state.observation import observe_values
from fraud.state.velocity import VelocityState
from stores.settings import settings

#: Rows whose states are held at once.
CHUNK = 5_000
_COLUMNS = (
    "transaction_id", "event_timestamp", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip",
    "amount_reference", "channel", "merchant_category", "country", "currency", "latitude", "longitude",
)  # fmt: skip


def prepare(chosen: argparse.Namespace) -> None:
    """Dataset, lake and daily profile cuts."""
    from datasets.load import load
    from datasets.synthetic.drift import Drift
    from datasets.synthetic.generate import Plan, write
    from feature_repo.aggregates.run import run_cuts
    from feature_repo.spark import spark_session

    home = settings().home
    if not (home / "dataset" / "dataset.json").exists():
        plan = Plan(
            customers=chosen.customers, days=chosen.days, start=chosen.start, seed=chosen.seed,
            drifts=tuple(Drift.parse(text) for text in chosen.drift),
        )  # fmt: skip
        write(plan, home / "dataset", print)
        load(home / "dataset", settings().lake)
    wanted = [
        week_start(chosen.start, chosen.first_week) + timedelta(days=day)
        for day in range(-1, chosen.weeks * 7)
    ]
    missing = [cut for cut in wanted if not _cut_folder(ENTITIES[0].name, cut).exists()]
    if missing:
        run_cuts(missing, spark_session("drift weeks"), progress=print)


def week_start(start: date, week: int) -> datetime:
    """Midnight UTC of the first day of a week of the world."""
    return datetime.combine(start, datetime.min.time(), UTC) + timedelta(weeks=week)


def _cut_folder(entity: str, cut: datetime) -> Path:
    return settings().lake / "profiles" / entity / f"cut={cut:%Y%m%dT%H%M%S}"


class Replay:
    """States of every entity, kept in event order, and the vectors that reads just before each event give."""

    def __init__(self) -> None:
        self._states: list[dict[str, VelocityState]] = [{} for _ in ENTITIES]
        self._packed: list[dict[str, bytes]] = [{} for _ in ENTITIES]
        self._profiles: dict[tuple[str, datetime], pd.DataFrame | None] = {}

    def add(self, rows: dict[str, list[Any]], *, read: bool) -> list[list[bytes | None]]:
        """Add transactions; with `read`, the packed states that each one met, by entity."""
        met: list[list[bytes | None]] = [[] for _ in ENTITIES]
        milliseconds = [value // 1000 for value in rows["event_timestamp"]]
        for at, event_ms in enumerate(milliseconds):
            ids = tuple(rows[entity.key][at] for entity in ENTITIES)
            seen = observe_values(
                event_ms, rows["amount_reference"][at], rows["transaction_id"][at], ids, rows["country"][at],
                rows["latitude"][at], rows["longitude"][at],
            )  # fmt: skip
            for place, entity in enumerate(ENTITIES):
                value = ids[place]
                if value is None:
                    if read:
                        met[place].append(None)
                    continue
                state = self._states[place].get(value)
                if state is None:
                    state = self._states[place][value] = VelocityState(entity)
                    if read:
                        met[place].append(None)
                elif read:
                    met[place].append(state.pack())
                state.add(seen, place)
        return met

    def vectors(self, rows: dict[str, list[Any]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The vector of each transaction, which is then added."""
        met = self.add(rows, read=True)
        profiles = self._profile_columns(rows)
        request = request_columns(rows)
        inputs = {name: profiles[name] for name in PROFILE_INPUTS}
        matrix = transaction_matrix(met, request, inputs)
        served = [profiles[name] for entity in ENTITIES for name in SERVED_PROFILES[entity.name]]
        names = [feature.name for feature in TRANSACTION_FEATURES]
        assert [*(name for entity in ENTITIES for name in SERVED_PROFILES[entity.name]), *names] == list(
            VECTOR
        )
        return np.column_stack([*served, matrix]).astype(np.float32)

    def _profile_columns(
        self, rows: dict[str, list[Any]]
    ) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """Every profile feature as of the newest daily cut that was visible."""
        times = pd.to_datetime(pd.Series(rows["event_timestamp"]), unit="us", utc=True)
        visible = (times - pd.Timedelta(minutes=settings().history.cut_lag_minutes)).dt.floor("D")
        columns: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        for entity in ENTITIES:
            keys = pd.Series(rows[entity.key])
            for cut in visible.unique():
                found = self._profile(entity.name, entity.key, cut.to_pydatetime())
                mask = ((visible == cut) & (times - cut <= PROFILE_TTL)).to_numpy()
                if found is None:
                    continue
                picked = found.reindex(keys[mask])
                for name in found.columns:
                    column = columns.setdefault(name, np.full(len(times), np.nan))
                    column[mask] = picked[name].to_numpy()
        names = {*PROFILE_INPUTS, *(name for served in SERVED_PROFILES.values() for name in served)}
        return {name: columns.get(name, np.full(len(times), np.nan)) for name in names}

    def _profile(self, entity: str, key: str, cut: datetime) -> pd.DataFrame | None:
        if (entity, cut) not in self._profiles:
            self._profiles = {
                at: frame for at, frame in self._profiles.items() if at[1] >= cut - timedelta(days=2)
            }
            files = sorted(_cut_folder(entity, cut).glob("*.parquet"))
            frame = pd.concat([pd.read_parquet(file) for file in files]).set_index(key) if files else None
            dropped = ["event_timestamp", "created_timestamp"]
            self._profiles[entity, cut] = frame.drop(columns=dropped) if frame is not None else None
        return self._profiles[entity, cut]


def transactions(start: datetime, end: datetime) -> Iterator[pa.Table]:
    """The lake's rows in event order, by day."""
    lake = settings().lake / "transactions"
    day = start
    while day < end:
        folder = lake / f"date={day:%Y-%m-%d}"
        if folder.exists():
            yield ds.dataset(str(folder), format="parquet").to_table().sort_by("ingest_seq")
        day += timedelta(days=1)


def columns_of(table: pa.Table) -> dict[str, list[Any]]:
    """The columns a replay needs, event times as microseconds."""
    return {
        name: (table[name].cast(pa.int64()) if name == "event_timestamp" else table[name]).to_pylist()
        for name in _COLUMNS
    }


def build(chosen: argparse.Namespace) -> None:
    """Everything from the generator to the weeks' files."""
    folder = settings().home / "weeks"
    names = [folder / f"{chosen.first_week + week:03d}.parquet" for week in range(chosen.weeks)]
    if all(path.exists() for path in names):
        return
    prepare(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    replay = Replay()
    first = week_start(chosen.start, chosen.first_week)
    for day in transactions(week_start(chosen.start, 0), first):
        replay.add(columns_of(day), read=False)
    for week, path in enumerate(names):
        tables, blocks = [], []
        for day in transactions(first + timedelta(weeks=week), first + timedelta(weeks=week + 1)):
            for at in range(0, len(day), CHUNK):
                tables.append(day.slice(at, CHUNK))
                blocks.append(replay.vectors(columns_of(tables[-1])))
        table, matrix = pa.concat_tables(tables), np.concatenate(blocks)
        for place, name in enumerate(VECTOR):
            table = table.append_column(name, pa.array(np.ascontiguousarray(matrix[:, place])))
        partial = path.with_name(f".{path.name}")
        pq.write_table(table, partial, compression="zstd")
        partial.rename(path)
        print(f"{path.stem}: {len(table):,} rows", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the weeks that are missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift_weeks", description=__doc__)
    parser.add_argument("--start", type=date.fromisoformat, required=True)
    parser.add_argument("--days", type=int, required=True)
    parser.add_argument("--customers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--first-week", type=int, required=True)
    parser.add_argument("--weeks", type=int, required=True)
    parser.add_argument("--drift", nargs="*", default=[], metavar="KIND@DATE")
    build(parser.parse_args(arguments))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
