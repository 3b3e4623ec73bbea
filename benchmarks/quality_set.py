"""Build the handbook's training set for `benchmarks.quality` by the users' own commands.

Everything lives in a home of its own, `<home>/bench-quality`; a step that is done is not done
again, so an interrupted build goes on.
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
_FEAST = "from feast.cli.cli import cli; cli()"


class BuildError(RuntimeError):
    """A step that failed; the text holds its last words."""


def handbook_set(data: Path, first: date, last: date) -> Path:
    """The folder of the set of transactions from `first` until `last` (not included), UTC dates.

    `data` is the handbook's file; labels are all known, as of the end of the data.
    """
    home = settings().home / "bench-quality"
    dataset, out = home / "dataset", home / f"set-{first:%Y%m%d}-{last:%Y%m%d}"
    before = first - timedelta(days=LOOK_BACK_DAYS)
    span = ("--from", _moment(first - timedelta(days=2)), "--to", _moment(last))
    source = ("--data", str(data), "--mapping", str(MAPPING))
    steps: list[tuple[str, list[str]]] = [
        ("import", ["-m", "datasets.importer", *source, "--out", str(dataset)]),
        ("load", ["-m", "datasets.load", "--dataset", str(dataset)]),
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
        print(f"quality: {name} in {time.perf_counter() - began:.0f} s", flush=True)
    return out


def _moment(day: date) -> str:
    return f"{day.isoformat()}T00:00:00+00:00"
