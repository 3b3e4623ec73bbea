"""The built wheel, unpacked anywhere: its files are in it, and what it makes goes where it is used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stores.settings import REPOSITORY


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of a wheel that was built of these sources."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    shutil.copytree(
        REPOSITORY, sources,
        ignore=shutil.ignore_patterns(".*_cache", ".git", ".venv", ".tollgate", "results", "build", "tests", "docs", "__pycache__"),
    )  # fmt: skip
    build = "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=sources, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / done.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(folder / "packages")
    return folder / "packages"


def run(unpacked: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd,
        env=environment | {"PYTHONPATH": str(unpacked), "TOLLGATE_RUN": str(cwd / "run")},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_everything_that_is_read_at_run_time_is_in_the_wheel(unpacked: Path) -> None:
    code = {".py", ".pyc"}
    read = {
        str(path.relative_to(REPOSITORY))
        for package in REPOSITORY.glob("*/__init__.py")
        if package.parent.name not in ("tests", "benchmarks")
        for path in package.parent.rglob("*")
        if path.is_file() and path.suffix not in code | {".sh", ".nbi", ".nbc"}
    }
    assert len(read) > 15
    assert read - {str(path.relative_to(unpacked)) for path in unpacked.rglob("*")} == set()
    assert list(unpacked.glob("*.dist-info/licenses/LICENSE"))


def test_what_an_installed_tollgate_makes_goes_to_the_current_folder(unpacked: Path, tmp_path: Path) -> None:
    ask = (
        "import json; from stores.settings import REPOSITORY, settings; "
        "from bentos.rules import ruleset; print(json.dumps([str(REPOSITORY), str(settings().home), str(settings().results), ruleset.__file__]))"
    )
    done = run(unpacked, tmp_path, "-c", ask)
    assert done.returncode == 0, done.stderr
    packages, home, results, rules = json.loads(done.stdout)
    assert packages == str(unpacked) and rules.startswith(packages)
    assert home == str(tmp_path / ".tollgate") and results == str(tmp_path / "results")


def test_definitions_are_applied_from_any_folder(unpacked: Path, tmp_path: Path) -> None:
    done = run(unpacked, tmp_path, "-m", "tollgate", "feast", "apply")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / ".tollgate" / "registry.db").exists()
    assert not list(unpacked.rglob("registry.db"))


def test_a_command_that_writes_into_the_sources_says_that_it_needs_them(
    unpacked: Path, tmp_path: Path
) -> None:
    done = run(unpacked, tmp_path, "-m", "tollgate", "figures")
    assert done.returncode == 1
    assert "in a checkout" in done.stderr and "Traceback" not in done.stderr
