"""What somebody who writes files, and holds no key, can make the decision log's readers believe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentos.log.decision_files import convert_all
from bentos.log.decision_log import DecisionLog
from bentos.tools.audit import audit
from fraud.features.feature_list import VECTOR
from stores.decisions import decisions_folder
from stores.keys import open_keys
from stores.lake_files import files_of_date
from stores.settings import load_settings
from tests.bentos.log.test_decision_log import row


def logged(home: Path) -> Path:
    """A file of five decisions."""
    log = DecisionLog(home, open_keys(load_settings()).seal("log"))
    log.append([row(f"t{place}") for place in range(5)])
    log.close()
    convert_all(home)
    (path,) = decisions_folder(home).rglob("*.parquet")
    return path


def names_swapped(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    swapped = {VECTOR[0]: VECTOR[1], VECTOR[1]: VECTOR[0]}
    pq.write_table(table.rename_columns([swapped.get(name, name) for name in table.column_names]), path)


def a_name_changed(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.rename_columns(["other" if n == VECTOR[3] else n for n in table.column_names]), path)


def times_in_another_unit(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    place = table.column_names.index("event_timestamp")
    kind = pa.timestamp("ns", tz="UTC")
    same_numbers = table.column(place).cast(pa.int64()).cast(kind)
    pq.write_table(table.set_column(place, pa.field("event_timestamp", kind), same_numbers), path)


def moved(path: Path) -> None:
    elsewhere = path.parent.parent.parent / "date=2001-01-01" / "hour=00"
    elsewhere.mkdir(parents=True)
    path.rename(elsewhere / path.name)


def forged_and_planned_away(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    forged = pa.array(["forged"] * len(table), pa.string())
    pq.write_table(
        table.set_column(table.column_names.index("transaction_id"), "transaction_id", forged),
        path.parent / "zzz-000000.parquet",
    )
    plan = {"target": path.name, "sources": ["zzz-000000.parquet"]}
    (path.parent / "_compact-x.json").write_text(json.dumps(plan))


def forged_and_hidden_from_readers(path: Path) -> None:
    forged_and_planned_away(path)
    (path.parent / "_compact-x.json").unlink()
    (path.parent / "zzz-000000.parquet").rename(path.parent / "_zzz-000000.parquet")


@pytest.mark.finding("H8", "high", "the log that can be proved could be forged by whoever writes its files")
@pytest.mark.parametrize(
    "attack",
    [names_swapped, a_name_changed, times_in_another_unit, moved, forged_and_planned_away,
     forged_and_hidden_from_readers],
)  # fmt: skip
def test_what_readers_would_take_otherwise_than_it_was_written_is_found(
    attack: Callable[[Path], None], tmp_path: Path
) -> None:
    path = logged(tmp_path)
    seal = open_keys(load_settings()).seal("log", retired=True)
    assert audit(tmp_path, seal).problems == []
    attack(path)
    assert audit(tmp_path, seal).problems


@pytest.mark.finding("H4", "high", "one file that is none stops what reads the folder")
@pytest.mark.parametrize("junk", [b"{", b"[]", b"[" * 100_000, b'{"target": 1}', b"\xff"])
def test_a_plan_that_is_none_hides_no_file_and_stops_nobody(junk: bytes, tmp_path: Path) -> None:
    path = logged(tmp_path)
    (path.parent / "_compact-x.json").write_bytes(junk)
    (path.parent / "_compact-y.json").mkdir()
    assert files_of_date(path.parent) == [path]
    assert audit(tmp_path, open_keys(load_settings()).seal("log", retired=True)).problems == []


@pytest.mark.finding("H4", "high", "one file that is none stops what reads the folder")
def test_a_folder_or_a_pipe_among_the_segments_stops_no_label(tmp_path: Path) -> None:
    from bentos.log.label_files import convert_labels
    from bentos.log.labels import labels_folder

    folder = labels_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "a.ready").mkdir()
    (folder / "waiting.frames").mkdir()
    os.mkfifo(folder / "b.ready")
    assert convert_labels(tmp_path) == 0
