"""Loading a dataset fills the lake up to a time, with all labels, however often it is run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from datasets.load import load, main
from datasets.synthetic import Plan, write
from stores.lake import read_labels, read_transactions
from stores.settings import settings


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    write(Plan(customers=40, days=6, seed=2, fraud_share=0.05), folder)
    return folder


def test_history_ends_before_the_time_given_and_every_label_goes_in(dataset: Path, tmp_path: Path) -> None:
    until = datetime(2026, 1, 4, 12, tzinfo=UTC)
    rows, labels = load(dataset, tmp_path, until)
    table = read_transactions(tmp_path)
    assert table.num_rows == rows > 0
    assert max(table.column("event_timestamp").to_pylist()) < until
    everything, _ = load(dataset, tmp_path / "all")
    assert everything > rows
    assert read_labels(tmp_path).num_rows == labels
    assert read_labels(tmp_path, datetime(2026, 1, 1, tzinfo=UTC)).num_rows == 0


def test_loading_again_and_loading_less_replace_what_was_there(dataset: Path, tmp_path: Path) -> None:
    load(dataset, tmp_path)
    full = read_transactions(tmp_path)
    load(dataset, tmp_path)
    assert read_transactions(tmp_path).equals(full)
    early = datetime(2026, 1, 2, tzinfo=UTC)
    load(dataset, tmp_path, early)
    assert read_transactions(tmp_path).num_rows == full.num_rows - read_transactions_from(full, early)


def read_transactions_from(table: object, start: datetime) -> int:
    import pyarrow as pa

    assert isinstance(table, pa.Table)
    return sum(when >= start for when in table.column("event_timestamp").to_pylist())


def test_the_command_loads_into_the_lake_of_the_settings(
    dataset: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", str(dataset), "--until", "2026-01-03T00:00:00Z"]) == 0
    assert read_transactions(settings().lake).num_rows > 0
    assert str(home) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("until", "message"), [("2026-01-03T00:00:00", "should carry an offset"), ("soon", "Invalid isoformat")]
)
def test_a_time_without_an_offset_is_refused(
    dataset: Path, until: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--dataset", str(dataset), "--until", until, "--lake", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--dataset", str(tmp_path), "--lake", str(tmp_path / "lake")])
    assert "dataset.json" in capsys.readouterr().err
