"""A compaction that dies between its merged file and the last source, and everybody who reads the date."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.decisions import read_decisions
from monitoring.gates.facts import History
from monitoring.gates.run import run_gate
from monitoring.status.health import event_clock, lake
from stores.lake import TRANSACTION_SCHEMA, parquet_history, read_transactions
from stores.lake_files import parquet_files
from stores.settings import REPOSITORY, load_settings
from streaming.ingest.compact import compact
from tests.monitoring.made_days import DAY, rows

ROWS = 3_000

#: The compaction of `streaming.ingest.compact`, killed where its sources would be deleted.
KILLED = """
import os, pathlib, sys
from streaming.ingest import compact
unlink, left = pathlib.Path.unlink, int(sys.argv[2])
def killed(path, missing_ok=False):
    global left
    if path.name.startswith("arrival-"):
        if left == 0:
            os._exit(9)
        left -= 1
    unlink(path, missing_ok=missing_ok)
pathlib.Path.unlink = killed
compact.compact(pathlib.Path(sys.argv[1]), older_than_s=-10)
"""


@pytest.fixture
def date_folder(home: Path) -> Path:
    """A day as the flow leaves it: twelve small files."""
    folder = home / "lake" / "transactions" / f"date={DAY:%Y-%m-%d}"
    folder.mkdir(parents=True)
    table = pa.table(rows(count=ROWS), schema=TRANSACTION_SCHEMA)
    step = ROWS // 12
    for at in range(0, ROWS, step):
        name = f"arrival-000-{at:020d}-{at + step - 1:020d}.parquet"
        pq.write_table(table.slice(at, step), folder / name)
    return folder


@pytest.mark.parametrize("deleted", [0, 5])
def test_every_reader_sees_each_row_once_after_a_compaction_was_killed(
    date_folder: Path, home: Path, deleted: int
) -> None:
    lake_root = home / "lake"
    before = read_transactions(lake_root)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(lake_root), str(deleted)], cwd=REPOSITORY, check=False
    )
    assert done.returncode == 9
    assert len(list(date_folder.glob("*.parquet"))) == 13 - deleted  # the merged file and what it replaces
    assert len(parquet_files(lake_root / "transactions")) == 1

    gate = run_gate(
        "raw",
        date_folder,
        as_of=(DAY + timedelta(days=1)).astimezone(UTC),
        history=History(home / "past.json"),
    )
    assert gate.rows == ROWS
    assert not gate.blocked, gate.failures
    assert read_transactions(lake_root).equals(before)
    assert parquet_history(lake_root) == {DAY.date(): ROWS}
    config = load_settings()
    part = lake(config, event_clock(config))
    assert f"{ROWS:,} transactions on the last day" in part.lines
    assert read_decisions(lake_root / "transactions").num_rows == ROWS

    compact(lake_root)  # the next run completes it
    assert len(list(date_folder.iterdir())) == 1
    assert read_transactions(lake_root).equals(before)
