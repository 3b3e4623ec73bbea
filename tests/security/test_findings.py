"""The report of findings: held only by tests that ran and passed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stores.settings import REPOSITORY

TESTS = """
import pytest

@pytest.mark.finding("C1", "critical", "one")
def test_one(): pass

@pytest.mark.finding("H1", "high", "two")
def test_two(): pass

@pytest.mark.finding("H1", "high", "three")
def test_three(): assert False

@pytest.mark.finding("H2", "high", "four")
def test_four(): pytest.skip("not here")

@pytest.mark.finding("H3", "high", "five")
def test_five(missing): pass

@pytest.mark.finding("L1", "low", "six")
def test_six(): pass
"""

RUN = """
import json, sys, msgspec, pytest
from tests.security.report import FindingsReport
report = FindingsReport()
pytest.main([sys.argv[1], "-q", "-p", "no:cacheprovider"], plugins=[report])
json.dump(msgspec.to_builtins(report.findings()), open(sys.argv[2], "w"))
"""


@pytest.fixture
def findings(tmp_path: Path) -> dict[str, bool]:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = finding(name, severity, sentence): x\n")
    command = [sys.executable, "-c", RUN, str(tmp_path / "test_some.py"), str(tmp_path / "found.json")]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return {entry["name"]: entry["held"] for entry in json.loads((tmp_path / "found.json").read_text())}


def test_a_finding_is_held_when_all_of_its_tests_passed(findings: dict[str, bool]) -> None:
    assert findings["C1"]
    assert findings["L1"]


def test_a_finding_with_a_test_that_failed_was_skipped_or_broke_is_open(findings: dict[str, bool]) -> None:
    assert not findings["H1"]
    assert not findings["H2"]
    assert not findings["H3"]


def test_a_finding_without_a_test_is_open_and_in_the_report(findings: dict[str, bool]) -> None:
    assert findings["M9"] is False
    assert len(findings) == 19 + 1
