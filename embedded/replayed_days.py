"""The days of the demo that are replayed: scored in event order, with a cut of aggregates every six hours."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from datasets.folder import read_dataset_transactions
from embedded.demo_plan import DemoError, Plan
from embedded.platform import service_url
from embedded.processes import Child
from embedded.replay import Replay, ReplayResult, ReplaySettings
from embedded.steps import note, progress
from fraud.contract.transaction import Transaction
from stores.lake import parquet_history, transactions_from_table
from stores.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class ReplayedDays:
    """A replay against the service and the stream among `children`, which are looked after meanwhile."""

    def __init__(
        self, config: Settings, chosen: Plan, spark: SparkSession, children: Sequence[Child]
    ) -> None:
        self._config = config
        self._chosen = chosen
        self._spark = spark
        self._children = children

    def run(self, dataset: Path) -> ReplayResult:
        """Score the days of `dataset` that the plan chose; what came of it."""
        chosen = self._chosen
        lag = timedelta(minutes=self._config.history.cut_lag_minutes)
        replay = Replay(
            ReplaySettings(
                url=f"{service_url(self._config)}/v1/score", redis_url=self._config.redis.url,
                project=self._config.feast.project, cut_lag_ms=int(lag.total_seconds() * 1000),
            ),
            on_cut=lambda cut_ms: self._on_cut(cut_ms, replay.sent),
            progress=lambda sent: progress(f"{sent:,} scored"),
        )  # fmt: skip
        return replay.run(self._transactions(dataset), int(chosen.replay_from.timestamp() * 1000))

    def _transactions(self, dataset: Path) -> Iterator[Transaction]:
        chosen = self._chosen
        time = pc.field("event_timestamp")
        inside = (time >= pc.scalar(chosen.replay_from)) & (time < pc.scalar(chosen.replay_to))
        return transactions_from_table(read_dataset_transactions(dataset).filter(inside))

    def _on_cut(self, cut_ms: int, sent: int) -> None:
        """What the 6-hour schedule does: everything in the lake, aggregates, materialize."""
        from feature_repo.aggregates.run import run_cuts
        from jobs.cut import materialize_cut

        cut = datetime.fromtimestamp(cut_ms / 1000, UTC)
        started = time.monotonic()
        if cut > self._chosen.replay_from:
            self._await_arrivals(sent)
            run_cuts([cut], self._spark)
        rows = materialize_cut(cut)
        note(f"cut {cut:%Y-%m-%d %H:%M}: {rows:,} profiles online in {time.monotonic() - started:.1f} s")

    def _await_arrivals(self, sent: int) -> None:
        """Wait until the stream's arrival log holds everything that was scored."""
        deadline = time.monotonic() + 60
        while True:
            days = parquet_history(self._config.lake)
            arrived = sum(rows for day, rows in days.items() if day >= self._chosen.replay_from.date())
            if arrived >= sent:
                return
            for child in self._children:
                child.check()
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{sent} transactions were scored, {arrived} reached the lake within a minute"
                )
            time.sleep(0.1)
