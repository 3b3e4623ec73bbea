"""Build the training sets of `benchmarks.quality` by the users' own commands.

What was built is not built again unless the feature definitions changed, so an interrupted
build goes on. The handbook's lake is the one of `benchmarks.training_set`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from benchmarks.lakes import Lake, computed, imported, loaded, once
from stores.settings import settings

#: The longest look back of any feature, in days, with the label maturity before it.
LOOK_BACK_DAYS = 38
#: The synthetic set: a customer base of the generator's default size and difficulty, long enough for
#: full windows, ten weeks to learn from and a test period.
SYNTHETIC_START, SYNTHETIC_DAYS = date(2026, 1, 1), 130
NEWCOMERS_DAYS = 66


def handbook_set(data: Path, first: date, last: date) -> Path:
    """The folder of the set of the handbook's transactions from `first` until `last` (not
    included), UTC dates. `data` is its file; labels are as known a month after `last`.
    Raises `benchmarks.lakes.CommandError`."""
    return _set(computed(imported(settings().home / "bench-handbook" / "lake", data)), first, last)


def synthetic_set() -> tuple[Path, Path]:
    """The folder of a set of synthetic transactions, and the file that tells the kinds of fraud.
    Raises `benchmarks.lakes.CommandError`."""
    home = settings().home / "bench-synthetic"
    words = ["-m", "datasets.synthetic", "--start", SYNTHETIC_START.isoformat(),
             "--days", str(SYNTHETIC_DAYS)]  # fmt: skip
    first = SYNTHETIC_START + timedelta(days=LOOK_BACK_DAYS)
    last = SYNTHETIC_START + timedelta(days=SYNTHETIC_DAYS)
    made = _set(computed(loaded(home, "generate", words)), first, last)
    return made, home / "dataset" / "ground_truth.parquet"


def newcomers_set() -> tuple[Path, Path]:
    """The folder of a shorter set of more customers, so that more of them are new in its test period, and
    the file that tells the kinds of fraud. Raises `benchmarks.lakes.CommandError`."""
    home = settings().home / "bench-newcomers"
    words = ["-m", "datasets.synthetic", "--start", SYNTHETIC_START.isoformat(),
             "--days", str(NEWCOMERS_DAYS), "--customers", "3000"]  # fmt: skip
    first = SYNTHETIC_START + timedelta(days=10)
    last = SYNTHETIC_START + timedelta(days=NEWCOMERS_DAYS)
    made = _set(computed(loaded(home, "generate", words)), first, last)
    return made, home / "dataset" / "ground_truth.parquet"


def _set(lake: Lake, first: date, last: date) -> Path:
    """The set of `lake` from `first` until `last`."""
    start, end = (datetime.combine(day, time(), UTC) for day in (first, last))
    out = lake.home / f"set-{first:%Y%m%d}-{last:%Y%m%d}"
    words = ["-m", "training.dataset", "--from", start.isoformat(), "--to", end.isoformat(),
             "--as-of", (end + timedelta(days=30)).isoformat(), "--out", str(out)]  # fmt: skip
    once(lake.home, out.name, words, lake.environment)
    return out
