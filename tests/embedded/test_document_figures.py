"""The figures in docs come from files that commands wrote, and a command that was not run keeps its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedded.document_figures import GROUPS, UNKNOWN, document, value_at
from stores.settings import REPOSITORY


def row(page: str, meaning: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(f"| {meaning} |"))


def test_a_figure_whose_command_was_not_run_again_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    gates, drift = tmp_path / "bench" / "gates.json", tmp_path / "bench" / "drift.json"
    gates.write_text(json.dumps({"pandas": {"seconds": 10.4}}))
    drift.write_text(
        json.dumps({"false_alarm_weeks": 1, "drifts": [{"detected": True}, {"detected": False}]})
    )
    first = document(tmp_path)
    gates.write_text(json.dumps({"pandas": {"seconds": 11.5}}))
    drift.unlink()
    second = document(tmp_path, first)
    assert second == first.replace("10.4 s", "11.5 s")
    assert "1 of 2" in row(second, "known drifts that the report finds")


def test_a_figure_that_no_run_has_given_says_so(tmp_path: Path) -> None:
    assert UNKNOWN in row(document(tmp_path), "events lost")


def test_a_path_that_leads_nowhere_is_an_error_and_no_figure() -> None:
    with pytest.raises(KeyError, match=r"single\.ratio"):
        value_at({"single": {}}, "single.ratio")


def test_every_figure_has_a_name_of_its_own_and_the_page_is_one_page() -> None:
    names = [figure.meaning for group in GROUPS for figure in group.figures]
    assert len(set(names)) == len(names)
    assert len(names) <= 60


def test_the_page_in_the_docs_has_the_rows_of_today(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "figures.md").read_text()
    meanings = [
        line.split(" | ")[0] for line in document(tmp_path, page).splitlines() if line.startswith("| ")
    ]
    assert [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")] == meanings
