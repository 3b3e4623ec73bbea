"""The figures in docs come from files that commands wrote, and a command that was not run keeps its own."""

from __future__ import annotations

import json
from pathlib import Path

from embedded.document_figures import document


def test_a_section_whose_command_was_not_run_again_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    gates, drift = tmp_path / "bench" / "gates.json", tmp_path / "bench" / "drift.json"
    gates.write_text(json.dumps({"seconds": 10.4}))
    drift.write_text(json.dumps({"quiet_weeks": 26}))
    first = document(tmp_path)
    gates.write_text(json.dumps({"seconds": 11.5}))
    drift.unlink()
    second = document(tmp_path, first)
    assert second == first.replace("10.4", "11.5")
    assert "| quiet_weeks | 26 |" in second
