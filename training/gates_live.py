"""Gates on what happened live: the canary's own decisions, and whether serving saw what training sees.

Both read what a report left (`monitoring.experiment`, `monitoring.parity`): promotion looks at files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from stores.decisions import decisions_folder
from stores.lake_files import parquet_files
from stores.settings import settings
from training.gates import Verdict

#: Verdicts of an experiment with which a challenger may decide for everyone.
GOOD_ENOUGH: Final = ("better", "equal")
#: Share of served rows that may differ from the rebuild; none may differ without a known cause.
MOST_DIFFERENT: Final = 0.001


def _check(gate: str, passed: bool, reason: str) -> Verdict:
    return [{"gate": gate, "passed": passed, "reason": reason}]


def experiment_path(version: str) -> Path:
    """Where the report on a challenger's live decisions is."""
    return settings().results / "experiments" / version / "experiment.json"


def experiment_gate(version: str, champion: str | None) -> Verdict:
    """The challenger's live, matured decisions were worth as much as the champion's, or more."""
    if champion in (None, version):
        return _check("experiment", True, "no other champion to hold it against")
    found = _read(experiment_path(version))
    if not found or found.get("champion_version") != champion:
        return _check(
            "experiment",
            False,
            f"no report on its decisions beside {champion}'s; run `make experiment-report`",
        )
    return _check("experiment", found["verdict"] in GOOD_ENOUGH, f"{found['verdict']}: {found['reason']}")


def parity_gate() -> Verdict:
    """What serving saw is what training sees. Passes while nothing was decided yet."""
    folder = decisions_folder(settings().home)
    if not (folder.is_dir() and parquet_files(folder)):
        return _check("parity", True, "no decision log yet")
    found = _read(settings().results / "parity" / "parity.json")
    if not found:
        return _check("parity", False, "served vectors were not held against a rebuild; run `make parity`")
    rows, different = found["rows"], found["mismatched_rows"]
    unexplained = found["causes"].get("unexplained", 0) + found["unmatched"]
    return _check(
        "parity", different <= MOST_DIFFERENT * rows and not unexplained,
        f"{different} of {rows} served rows differ from the rebuild, {unexplained} without a known cause",
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found
