"""A home with all that point-in-time sets of a file of transactions need, by the users' own commands.

A step that is done is not done again, unless the feature definitions changed meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from datasets.folder import read_info
from stores.settings import REPOSITORY
from training.dataset_manifest import definitions_hash

MAPPING = REPOSITORY / "datasets" / "mappings" / "handbook.yaml"
#: Where the handbook's file lies on a machine that has it, beside the repository.
BESIDE = REPOSITORY.parent / "shared" / "data" / "handbook" / "transactions.parquet"
#: `feast apply`, with the modules of the working folder rather than those that are installed.
_FEAST = "from feast.cli.cli import cli; cli()"


class CommandError(RuntimeError):
    """A command that failed; the text holds its last words."""


@dataclass(frozen=True, slots=True)
class Lake:
    """A home whose lake is filled: first day and end (UTC midnights) of its transactions."""

    home: Path
    start: datetime
    end: datetime

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which commands work on this home."""
        fixed = {"TOLLGATE_HOME": str(self.home), "TZ": "UTC", "PYSPARK_PYTHON": sys.executable}
        return {**os.environ, **fixed}


def command(words: Sequence[str], environment: Mapping[str, str], limit: float | None = None) -> str:
    """Run ``python`` with `words` to its end and return what it printed; CommandError if it fails.

    subprocess.TimeoutExpired after `limit` seconds.
    """
    ran = subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, env=dict(environment), capture_output=True, text=True,
        check=False, timeout=limit,
    )  # fmt: skip
    if ran.returncode:
        raise CommandError(f"{' '.join(words[:2])} failed:\n{(ran.stderr or ran.stdout)[-2_000:]}")
    return ran.stdout


def imported(home: Path, data: Path, mapping: Path = MAPPING) -> Lake:
    """A lake with the transactions and labels of `data`, mapped onto the contract, and nothing else."""
    source = ("--data", str(data.resolve()), "--mapping", str(mapping.resolve()))
    return loaded(home, "import", ["-m", "datasets.importer", *source])


def loaded(home: Path, name: str, words: Sequence[str]) -> Lake:
    """A lake with the dataset that ``python`` with `words` and ``--out`` makes, and nothing else."""
    dataset = home / "dataset"
    environment = Lake(home, datetime.max, datetime.max).environment
    once(home, name, [*words, "--out", str(dataset)], environment)
    info = read_info(dataset)
    first, last = (datetime.fromisoformat(str(text)).astimezone(UTC) for text in (info.start, info.end))
    lake = Lake(home, _midnight(first), _midnight(last) + timedelta(days=1))
    once(home, "load", ["-m", "datasets.load", "--dataset", str(dataset)], lake.environment)
    return lake


def computed(lake: Lake) -> Lake:
    """`lake` with definitions, aggregates of all its cuts and the velocity log of all its days."""
    span = ("--from", lake.start.isoformat(), "--to", lake.end.isoformat())
    apply = ["-c", _FEAST, "-c", str(REPOSITORY / "feature_repo"), "apply"]
    once(lake.home, "apply", apply, lake.environment)
    once(lake.home, "aggregates", ["-m", "feature_repo.aggregates", *span], lake.environment)
    once(lake.home, "velocity", ["-m", "feature_repo.velocity_log", *span], lake.environment)
    return lake


def once(home: Path, name: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run ``python`` with `words`, unless it was run in `home` as `name` with these definitions."""
    done = home / "done" / f"{name}-{definitions_hash()[:12]}"
    if done.exists():
        return
    began = time.perf_counter()
    command(words, environment)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(f"{time.perf_counter() - began:.1f} seconds\n")
    print(f"{name} in {time.perf_counter() - began:.0f} s", flush=True)


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)
