"""The pytest plugin that turns outcomes of tests into findings held or not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.security.findings import FINDINGS, Finding


class Held(msgspec.Struct):
    """A finding's line in the report."""

    name: str
    severity: str
    held: bool
    title: str
    tests: int = 0


class FindingsReport:
    """Collects the outcome of every test that carries a finding."""

    def __init__(self) -> None:
        self._known: dict[str, Finding] = {finding.name: finding for finding in FINDINGS}
        self._of_test: dict[str, list[str]] = {}
        self._outcomes: dict[str, dict[str, bool]] = {finding.name: {} for finding in FINDINGS}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for marker in item.iter_markers("finding"):
                finding = _finding(item, marker)
                if self._known.setdefault(finding.name, finding).severity != finding.severity:
                    raise pytest.UsageError(f"{item.nodeid}: {finding.name} has another severity elsewhere")
                self._of_test.setdefault(item.nodeid, []).append(finding.name)
                # A test that never runs does not hold anything.
                self._outcomes.setdefault(finding.name, {})[item.nodeid] = False

    def pytest_runtest_logreport(self, report: Any) -> None:
        for name in self._of_test.get(report.nodeid, ()):
            if report.when == "call":
                self._outcomes[name][report.nodeid] = report.passed
            elif report.failed:
                self._outcomes[name][report.nodeid] = False

    def findings(self) -> list[Held]:
        """Every finding, with whether all tests that carry it passed (at least one)."""
        return [
            Held(name, self._known[name].severity, bool(tests) and all(tests.values()),
                 self._known[name].title, len(tests))
            for name, tests in self._outcomes.items()
        ]  # fmt: skip


def _finding(item: pytest.Item, marker: pytest.Mark) -> Finding:
    if len(marker.args) != 3 or not all(isinstance(part, str) for part in marker.args):
        raise pytest.UsageError(f"{item.nodeid}: finding takes a name, a severity and a sentence")
    return Finding(*marker.args)
