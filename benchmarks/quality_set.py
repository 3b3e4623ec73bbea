"""Build the training sets of `benchmarks.quality` by the users' own commands.

Everything lives in homes of its own under `<home>/bench-quality`; a step that is done is not
done again, so an interrupted build goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

from fraud.settings import REPOSITORY, settings

MAPPING = REPOSITORY / "datasets" / "mappings" / "handbook.yaml"
#: The longest look back of any feature, in days, with the label maturity before it.
LOOK_BACK_DAYS = 38
#: The synthetic set: a customer base of the generator's default size and difficulty, long enough for
#: full windows, ten weeks to learn from and a test period.
SYNTHETIC_START, SYNTHETIC_DAYS = date(2026, 1, 1), 130
_FEAST = "from feast.cli.cli import cli; cli()"


class BuildError(RuntimeError):
    """A step that failed; the text holds its last words."""


def handbook_set(data: Path, first: date, last: date) -> Path:
    """The folder of the set of the handbook's transactions from `first` until `last` (not
    included), UTC dates. `data` is its file; labels are as known a month after `last`."""
    home = settings().home / "bench-quality" / "handbook"
    source = ("--data", str(data), "--mapping", str(MAPPING))
    words = ["-m", "datasets.importer", *source, "--out", str(home / "dataset")]
    return _build(home, words, first, last)


def synthetic_set() -> tuple[Path, Path]:
    """The folder of a set of synthetic transactions, and the file that tells the kinds of fraud."""
    home = settings().home / "bench-quality" / "synthetic"
    words = ["-m", "datasets.synthetic", "--start", SYNTHETIC_START.isoformat(),
             "--days", str(SYNTHETIC_DAYS), "--out", str(home / "dataset")]  # fmt: skip
    first = SYNTHETIC_START + timedelta(days=LOOK_BACK_DAYS)
    last = SYNTHETIC_START + timedelta(days=SYNTHETIC_DAYS)
    return _build(home, words, first, last), home / "dataset" / "ground_truth.parquet"


def _build(home: Path, dataset: list[str], first: date, last: date) -> Path:
    """Make the dataset by the command `dataset`, and of it the set from `first` until `last`."""
    out = home / f"set-{first:%Y%m%d}-{last:%Y%m%d}"
    before = first - timedelta(days=LOOK_BACK_DAYS)
    span = ("--from", _moment(first - timedelta(days=2)), "--to", _moment(last))
    steps: list[tuple[str, list[str]]] = [
        ("dataset", dataset),
        ("load", ["-m", "datasets.load", "--dataset", str(home / "dataset")]),
        ("apply", ["-c", _FEAST, "-c", str(REPOSITORY / "feature_repo"), "apply"]),
        ("aggregates", ["-m", "feature_repo.aggregates", *span]),
        ("velocity", ["-m", "feature_repo.velocity_log", "--from", _moment(before), "--to", _moment(last)]),
        (
            "set",
            ["-m", "training.dataset", "--from", _moment(first), "--to", _moment(last),
             "--as-of", _moment(last + timedelta(days=30)), "--out", str(out)],
        ),
    ]  # fmt: skip
    (home / "done").mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TOLLGATE_HOME": str(home), "TZ": "UTC", "PYSPARK_PYTHON": sys.executable}
    for name, words in steps:
        done = home / "done" / f"{name}-{first:%Y%m%d}-{last:%Y%m%d}"
        if done.exists():
            continue
        began = time.perf_counter()
        ran = subprocess.run(
            [sys.executable, *words],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise BuildError(f"{name} failed:\n{(ran.stderr or ran.stdout)[-2_000:]}")
        done.write_text(f"{time.perf_counter() - began:.1f} seconds\n")
        print(f"quality: {home.name}: {name} in {time.perf_counter() - began:.0f} s", flush=True)
    return out


def _moment(day: date) -> str:
    return f"{day.isoformat()}T00:00:00+00:00"
