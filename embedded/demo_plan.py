"""What a demo run does, and when: decided from the dataset before anything is started."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq

from datasets.folder import read_info, transaction_files
from datasets.span import main_span

_MARKER = "demo.json"
_REPLAY_DAYS = 7
_REPLAY_ROWS = 70_000


#: Known frauds below which no model can be trained and judged: ten in each held-out period.
FEWEST_FRAUDS = 20


class DemoError(RuntimeError):
    """The demo cannot run or a step failed; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo does. Times are UTC; training rows lie in ``[train_from, replay_from)``."""

    dataset: str
    replay_from: datetime
    replay_to: datetime
    history_from: datetime
    train_from: datetime
    negatives: int


#: `--small`: the least history that a model can be trained and judged on, with few customers.
SMALL = (
    "--customers", "400", "--days", "24", "--replay-days", "1", "--train-days", "7", "--negatives", "8000",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """The demo's command line."""

    data: Path | None = None
    mapping: Path | None = None
    customers: int = 2000
    days: int = 45
    seed: int = 7
    replay_days: float | None = None
    train_days: int = 28
    negatives: int = 60_000
    replay_from: datetime | None = None
    start: date | None = None
    #: What becomes of a model that ranks too well (`training.train`), and features that it may not read.
    on_leak: str = "refuse"
    drop: str = ""

    def first_day(self) -> date:
        """The synthetic history's first day. By default it ends with yesterday, so that what the platform
        knows is fresh when `make up` serves it afterwards."""
        return self.start or datetime.now(UTC).date() - timedelta(days=self.days)


def check_trainable(dataset: Path) -> None:
    """Raise `DemoError` where a model cannot be trained on `dataset`, before anything is started."""
    info = read_info(dataset)
    if info.frauds < FEWEST_FRAUDS:
        raise DemoError(
            f"{dataset} holds {info.frauds} known frauds among {info.rows:,} transactions: too few to train "
            f"and judge a model, which takes {FEWEST_FRAUDS} at least (does the mapping say label?)"
        )


def plan(dataset: Path, options: Options, maturity: timedelta) -> Plan:
    """When history ends and the replay runs, from what the dataset holds."""
    info, span = read_info(dataset), main_span(dataset)
    if span is None:
        raise DemoError(f"{dataset} holds no transaction")
    start, end = span.start, span.end
    length = timedelta(days=options.replay_days or _replay_days(dataset, options, end))
    replay_from = options.replay_from or _midnight(_midnight(end) + timedelta(days=1) - length)
    train_from = max(
        _midnight(start + timedelta(days=8)), replay_from - maturity - timedelta(days=options.train_days)
    )
    if train_from + timedelta(days=3) > replay_from - maturity:
        raise DemoError(
            f"{dataset} spans {start:%Y-%m-%d} to {end:%Y-%m-%d}: too short to train on labels that take "
            f"{maturity.days} days to mature; at least {8 + 3 + maturity.days + 1} days are needed"
        )
    history_from = max(_midnight(start), train_from - maturity - timedelta(days=31))
    return Plan(info.name, replay_from, replay_from + length, history_from, train_from, options.negatives)


def _replay_days(dataset: Path, options: Options, end: datetime) -> int:
    """A day of synthetic data; of real data the last days, for figures that one day's luck does not make.

    At most a week, and no more than about `_REPLAY_ROWS` transactions.
    """
    if options.data is None:
        return 1
    files = [path for path in transaction_files(dataset) if path.stem <= f"{end:%Y-%m-%d}"]
    days = [pq.read_metadata(path).num_rows for path in files[-_REPLAY_DAYS:]]
    return max(1, min(len(days), int(_REPLAY_ROWS * len(days) / max(1, sum(days)))))


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def prepare_home(home: Path, results: Path, run: Path) -> None:
    """An empty home for the demo. One that it did not make itself is not touched."""
    if home.exists() and any(home.iterdir()) and not (home / _MARKER).exists():
        raise DemoError(
            f"{home} holds data that no demo made: set TOLLGATE_HOME to another folder, or remove it"
        )
    if (home / "platform.json").exists():
        raise DemoError("the platform is up on this home: run `make down` first")
    for folder in (home, run):
        shutil.rmtree(folder, ignore_errors=True)
    home.mkdir(parents=True)
    (home / _MARKER).write_text("{}\n")
    results.mkdir(parents=True, exist_ok=True)
