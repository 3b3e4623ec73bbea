"""A dated file of reference rates is checked by a command and put into force by a setting."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud.contract import money
from fraud.contract.reference_rates import USD
from stores.reference_rates import main, read_rates


@pytest.fixture(autouse=True)
def the_programs_own_rates() -> Iterator[None]:
    """What a test puts into force ends with it: amounts of this whole process depend on them."""
    yield
    money.use_rates(USD)


GOOD = "as_of: 2026-06-30\nusd:\n  EUR: 1.25\n  NOK: 0.1\n"


def test_a_file_is_checked_and_what_looks_odd_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(GOOD.replace("0.1", "10"))
    assert main([str(path)]) == 0
    said = capsys.readouterr().out
    assert "rates of 2026-06-30, 2 of" in said
    assert "NOK is 10" in said and "dollars a unit?" in said
    assert "the program's own rate stands: AED" in said
    assert read_rates(path).whole["JPY"] == "0.0067"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("usd: {EUR: 1}", "should hold as_of, a date, and usd"),
        ("as_of: soon\nusd: {EUR: 1}", "as_of should be a date"),
        ("as_of: 2026-01-01\nusd: {EUR: [1]}", "EUR: should be a decimal"),
        ("as_of: 2026-01-01\nusd: {EUR: x}", "EUR: should be a decimal"),
        ("as_of: 2026-01-01\nusd: {ABC: 1}", "ABC is not a currency"),
        ("as_of: 2026-01-01\nusd: {USD: 2}", "a dollar is worth 1"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(text)
    assert main([str(path)]) == 1
    assert message in capsys.readouterr().err


def test_the_setting_puts_the_rates_into_force(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(GOOD)
    code = (
        "from stores.settings import settings; settings()\n"
        "from fraud.contract.money import reference_cents; print(reference_cents(100, 'EUR'))"
    )

    def run() -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"TOLLGATE_REFERENCE_RATES": str(path)}
        return subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True)

    assert run().stdout == "125\n"
    path.write_text(GOOD.replace("1.25", "soon"))
    assert "TOLLGATE_REFERENCE_RATES: rates.yaml: EUR: should be a decimal" in run().stderr
