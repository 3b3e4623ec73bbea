"""One cut, from the lake to Redis, with gates before and after: `python -m jobs.materialize --cut T`.

    gate transactions and labels  →  aggregates  →  gate profiles  →  feast materialize-incremental  →  check Redis

A gate that blocks ends the run with exit code 1. Nothing of the cut reaches Redis then, and
profiles that did not pass are moved to `<home>/quarantine`, where no later run finds them.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq

from fraud.declared.figures import BatchView
from fraud.features.entities import CUT_INTERVAL
from monitoring.gates.checks import GateBlockedError, GateResult
from monitoring.gates.facts import History
from monitoring.gates.run import default_history, publish_state, run_gate
from stores.declared import batch_views
from stores.lake_files import parquet_files
from stores.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Say = Callable[[str], None]
#: Keys per entity whose online values are compared with the cut's parquet.
CHECKED_KEYS: Final = 50


class OnlineMismatchError(RuntimeError):
    """Redis does not hold what the cut's parquet says; the text names the view and how many keys."""


def materialize(
    cut: datetime,
    *,
    spark: SparkSession | None = None,
    history: History | None = None,
    docs: Path | None = None,
    say: Say = print,
) -> int:
    """Run one cut; return the profiles that went online.

    Raises `GateBlockedError` when a gate blocks, and `OnlineMismatchError` when the check
    after it fails.
    """
    from feature_repo.aggregates.run import run_cuts
    from feature_repo.aggregates.views import quarantine_folder, view_folder
    from jobs.cut import materialize_cut

    history = history or default_history()
    clock = max(datetime.now(UTC), cut + timedelta(days=1))
    for gate, folder in recent_folders(cut):
        _pass(run_gate(gate, folder, as_of=clock, history=history, docs=docs), say)
    started = time.monotonic()
    written = run_cuts([cut], spark)
    say(
        f"aggregates of {cut.isoformat()}: {sum(written.values()):,} rows in {time.monotonic() - started:.1f} s"
    )
    results = [
        run_gate(
            "profiles", view_folder(view, cut), entity=view.folder, as_of=clock, history=history, docs=docs
        )
        for view in batch_views()
        if written[view.folder]
    ]
    for result in results:
        say(result.text())
    blocked = [result for result in results if result.blocked]
    publish_state("profiles", bool(blocked))
    if blocked:
        kept = quarantine(cut)
        raise GateBlockedError(
            "\n".join(result.text() for result in blocked) + f"\n  the cut lies in {kept} now"
        )
    shutil.rmtree(quarantine_folder(cut), ignore_errors=True)  # what an earlier run left: this one passed
    online = materialize_cut(cut)
    checked = sum(check_online(view, cut) for view in batch_views())
    say(
        f"{online:,} profiles are online as of {cut.isoformat()}; {checked} of them were read back and are equal"
    )
    return online


def recent_folders(cut: datetime) -> list[tuple[str, Path]]:
    """The gates and folders of the days between the previous cut and this one."""
    days = sorted({(cut - CUT_INTERVAL).date(), (cut - timedelta(microseconds=1)).date()})
    found = [
        (gate, settings().lake / name / f"date={day.isoformat()}")
        for gate, name in (("raw", "transactions"), ("labels", "labels"))
        for day in days
    ]
    return [(gate, folder) for gate, folder in found if folder.exists()]


def quarantine(cut: datetime) -> Path:
    """Move the cut's profiles out of the lake; return where they are."""
    from feature_repo.aggregates.views import quarantine_folder, view_folder

    place = quarantine_folder(cut)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for view in batch_views():
        folder = view_folder(view, cut)
        if folder.exists():
            shutil.move(str(folder), str(place / view.folder))
    return place


def check_online(view: BatchView, cut: datetime) -> int:
    """Read some of the cut's keys back through Feast; how many were equal (all, or an error).

    A key that a later cut has overwritten since is passed over.
    """
    from feature_repo.aggregates.views import view_folder
    from feature_repo.store import open_store

    folder = view_folder(view, cut)
    files = parquet_files(folder) if folder.exists() else []
    rows: list[dict[str, Any]] = []
    for file in files:
        rows += pq.read_table(file).slice(0, CHECKED_KEYS).to_pylist()
        if len(rows) >= CHECKED_KEYS:
            break
    if not rows:
        return 0
    names = [name for name in rows[0] if name not in (view.key, "event_timestamp", "created_timestamp")]
    answer = (
        open_store()
        .get_online_features(
            features=[f"{view.name}:{name}" for name in names],
            entity_rows=[{view.key: row[view.key]} for row in rows],
        )
        .to_dict()
    )
    wrong = sum(
        not all(_same(answer[name][place], row[name]) for name in names) for place, row in enumerate(rows)
    )
    if wrong:
        raise OnlineMismatchError(
            f"{wrong} of {len(rows)} keys of {view.name} differ between Redis and the cut {cut.isoformat()}: "
            "a later cut may be online already; if not, run materialize again"
        )
    return len(rows)


def _same(online: Any, stored: Any) -> bool:
    absent = online is None or (isinstance(online, float) and math.isnan(online))
    return absent if stored is None else not absent and float(online) == float(stored)


def _pass(result: GateResult, say: Say) -> None:
    say(result.text())
    publish_state(result.gate, result.blocked)
    result.raise_if_blocked()


def newest_cut(now: datetime) -> datetime:
    """The last cut (00, 06, 12, 18 UTC) whose lag has passed at `now`."""
    visible = now - timedelta(minutes=settings().history.cut_lag_minutes)
    midnight = visible.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (visible - midnight) // CUT_INTERVAL * CUT_INTERVAL


def main(arguments: Sequence[str] | None = None) -> int:
    """Materialize one cut; 1 when a gate blocks or the check fails."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.materialize", description="gate, aggregate, gate, materialize"
    )
    parser.add_argument("--cut", help="the cut, RFC 3339 (default: the newest one)")
    parser.add_argument("--no-docs", action="store_true", help="do not build Data Docs")
    chosen = parser.parse_args(arguments)
    cut = datetime.fromisoformat(chosen.cut) if chosen.cut else newest_cut(datetime.now(UTC))
    if cut.tzinfo is None:
        parser.error("--cut should carry an offset, such as 2026-03-01T06:00:00Z")
    try:
        materialize(cut.astimezone(UTC), docs=None if chosen.no_docs else settings().results / "gates")
    except (GateBlockedError, OnlineMismatchError) as error:
        print(f"materialize stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
