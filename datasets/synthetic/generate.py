"""From a plan to a dataset: world, honest customers, thieves, drift, labels, files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from datasets.folder import DatasetInfo, new_dataset
from datasets.synthetic import drift as drifting
from datasets.synthetic import labels as reports
from datasets.synthetic.attacks import VISIBLE, stealthy
from datasets.synthetic.attacks_online import mule_transfer
from datasets.synthetic.drift import Drift
from datasets.synthetic.genuine import DAY_MS, addresses, genuine
from datasets.synthetic.rows import STEALTHY, Rows, concatenate
from datasets.synthetic.scene import Scene
from datasets.synthetic.tables import transaction_columns, truth_table
from datasets.synthetic.turnover import turnover
from datasets.synthetic.world import World, build_world
from datasets.validity import Findings, check_columns

Progress = Callable[[str], None]
#: Each stage draws from its own stream of random numbers, by place in this list.
_STAGES: Final = (
    "world",
    "genuine",
    "attacks",
    "stealth",
    "new_fraud",
    "drift",
    "columns",
    "labels",
    "turnover",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to generate: `days` whole UTC days from `start`, reproducible by `seed`.

    `fraud_share` is the share of all transactions, `stealthy_share` the share of the frauds
    that cannot be told from genuine ones.
    """

    customers: int = 2000
    days: int = 45
    start: date = date(2026, 1, 1)
    seed: int = 7
    fraud_share: float = 0.0075
    stealthy_share: float = 0.115
    drifts: tuple[Drift, ...] = ()

    def __post_init__(self) -> None:
        if self.customers < 10 or self.days < 1:
            raise ValueError("a plan needs at least 10 customers and 1 day")
        if not 0 <= self.seed < 2**63:
            raise ValueError("seed should be a whole number of at least 0")
        if not 0 <= self.fraud_share <= 0.2 or not 0 <= self.stealthy_share <= 1:
            raise ValueError("fraud_share should be 0 to 0.2 and stealthy_share 0 to 1")
        if len({drift.kind for drift in self.drifts}) != len(self.drifts):
            raise ValueError("each kind of drift can be switched on once")

    @property
    def start_ms(self) -> int:
        """Midnight UTC of the first day, in milliseconds since 1970."""
        return int(datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC).timestamp()) * 1000

    @property
    def end_ms(self) -> int:
        """Midnight UTC after the last day."""
        return self.start_ms + self.days * DAY_MS


@dataclass(frozen=True, slots=True)
class Dataset:
    """Tables of one world: TRANSACTION_SCHEMA, LABEL_SCHEMA and GROUND_TRUTH_SCHEMA."""

    transactions: pa.Table
    labels: pa.Table
    truth: pa.Table


def generate(plan: Plan, progress: Progress = lambda text: None) -> Dataset:
    """The dataset that `plan` describes; the same plan gives the same tables."""
    streams = {
        stage: np.random.default_rng(seed)
        for stage, seed in zip(_STAGES, np.random.SeedSequence(plan.seed).spawn(len(_STAGES)), strict=True)
    }
    progress(f"a world of {plan.customers:,} customers")
    world = build_world(plan.customers, plan.start_ms, plan.days, streams["world"])
    progress(f"{plan.days} days of genuine transactions")
    honest = genuine(world, plan.start_ms, plan.days, streams["genuine"], drifting.online_shift(plan.drifts))
    progress("attacks")
    rows = concatenate([honest, *_attacks(plan, world, honest, streams)])
    rows = rows.take((rows.event_ms >= plan.start_ms) & (rows.event_ms < plan.end_ms))
    rows = rows.take(np.argsort(rows.event_ms, kind="stable"))
    drifting.apply(rows, plan.drifts, streams["drift"])
    progress(f"columns of {len(rows):,} transactions")
    moves = turnover(world, addresses(world, plan.days), plan.start_ms, plan.days, streams["turnover"])
    transactions = transaction_columns(
        world, rows, moves.renamed(rows), f"tx{plan.seed}n", streams["columns"]
    )
    findings = Findings(len(rows))
    check_columns(transactions, findings)
    if findings.broken.any():
        raise AssertionError(f"the generator broke the contract: {findings.counts()}")
    ids = transactions.column("transaction_id").combine_chunks()
    labels = reports.label_table(ids, rows.event_ms, rows.kind > 0, streams["labels"])
    return Dataset(transactions, labels, truth_table(ids, rows))


def write(plan: Plan, out: Path, progress: Progress = lambda text: None) -> DatasetInfo:
    """Generate and write the dataset folder `out`; the same plan gives the same bytes."""
    dataset = generate(plan, progress)
    progress(f"writing {out}")
    with new_dataset(out) as writer:
        writer.add(dataset.transactions, dataset.labels, dataset.truth)
        return writer.finish(
            f"synthetic-{plan.seed}",
            label_policy={
                "kind": "lognormal",
                "median_days": reports.MEDIAN_DAYS,
                "p95_days": reports.P95_DAYS,
            },
            seed=plan.seed,
            source={"generator": "datasets.synthetic", "customers": plan.customers, "days": plan.days},
            drift=drifting.log(plan.drifts),
        )


def _attacks(plan: Plan, world: World, honest: Rows, streams: dict[str, np.random.Generator]) -> list[Rows]:
    """Rows of every attack; stealthy frauds are marked among `honest` itself."""
    places = addresses(world, plan.days)
    scene = Scene(world, honest, places, plan.start_ms, plan.start_ms, plan.end_ms, streams["attacks"])
    frauds = len(honest) * plan.fraud_share
    visible = frauds * (1 - plan.stealthy_share)
    blocks = [pattern(scene, round(visible * share)) for pattern, share in VISIBLE]
    begins = drifting.new_fraud_from(plan.drifts)
    if begins is not None and begins < plan.end_ms:
        share = (plan.end_ms - max(begins, plan.start_ms)) / (plan.end_ms - plan.start_ms)
        later = Scene(
            world,
            honest,
            places,
            plan.start_ms,
            max(begins, plan.start_ms),
            plan.end_ms,
            streams["new_fraud"],
        )
        blocks.append(mule_transfer(later, round(frauds * drifting.NEW_FRAUD_SHARE * share)))
    unseen = Scene(world, honest, places, plan.start_ms, plan.start_ms, plan.end_ms, streams["stealth"])
    honest.kind[stealthy(unseen, round(frauds * plan.stealthy_share))] = STEALTHY
    return blocks
