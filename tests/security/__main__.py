"""Run every test that holds a finding; write `results/security.json`: ``[{name, severity, held, ...}]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest

from stores.settings import REPOSITORY, settings
from tests.security.report import FindingsReport


def main(arguments: list[str]) -> int:
    """Pass further `arguments` on to pytest; 0 if every finding is held."""
    report = FindingsReport()
    # Collecting the others would import Spark, to leave them out again.
    carriers = [
        str(path) for path in sorted((REPOSITORY / "tests").rglob("test_*.py")) if "mark.finding(" in path.read_text()
    ]  # fmt: skip
    pytest.main([*carriers, "-m", "finding", *arguments], plugins=[report])
    findings = report.findings()
    path: Path = settings().results / "security.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(msgspec.to_builtins(findings), indent=2) + "\n")
    for finding in findings:
        tests = f"{finding.tests} test{'' if finding.tests == 1 else 's'}"
        print(
            f"{'held' if finding.held else 'OPEN':5} {finding.name:3} {finding.severity:9} {finding.title} ({tests})"
        )
    return 0 if all(finding.held for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
