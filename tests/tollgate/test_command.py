"""The command `tollgate`: help that comes at once and teaches, errors that say what to do, exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from stores.settings import REPOSITORY
from tollgate.commands import BY_NAME, GROUPS, Command


def tollgate(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tollgate", *arguments], cwd=cwd or REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_help_lists_every_command_by_who_runs_it_and_says_what_exit_codes_mean() -> None:
    shown = tollgate("--help")
    assert shown.returncode == 0
    for user, commands in GROUPS.items():
        section = shown.stdout.split(f"\n{user}:\n")[1].split("\n\n")[0]
        assert [
            line.split()[0] for line in section.splitlines() if line.startswith("  ") and line[2] != " "
        ] == [command.name for command in commands]
    assert "Exit codes: 0" in shown.stdout and "TOLLGATE_HOME" in shown.stdout


def test_help_loads_nothing_of_the_platform() -> None:
    ask = "import sys; from tollgate.__main__ import main; main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.splitlines()[-1]
    for heavy in (
        "'pandas'",
        "'numpy'",
        "'feast'",
        "'pyspark'",
        "'bentoml'",
        "'stores.settings'",
        "'pydantic'",
    ):
        assert heavy not in loaded


@pytest.mark.parametrize("command", BY_NAME.values(), ids=list(BY_NAME))
def test_a_command_has_a_module_an_example_of_itself_and_what_comes_next(command: Command) -> None:
    assert find_spec(command.module) is not None
    assert f"tollgate {command.name}" in command.example
    assert command.then and command.what.endswith(".")


@pytest.mark.parametrize("name", ["load", "promote", "keys", "audit", "down", "import"])
def test_the_help_of_a_command_teaches(name: str) -> None:
    shown = tollgate(name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert BY_NAME[name].example in shown.stdout and "Next: " in shown.stdout
    assert f"usage: tollgate {name}" in shown.stdout


def test_an_unknown_command_is_answered_with_the_nearest_one() -> None:
    refused = tollgate("promte", "status")
    assert refused.returncode == 2
    assert "did you mean `tollgate promote`?" in refused.stderr


def test_a_setting_that_cannot_be_used_is_named_without_a_traceback(tmp_path: Path) -> None:
    refused = tollgate("down", TOLLGATE_HOME=str(tmp_path), TOLLGATE_SERVE_PORT="seventy")
    assert refused.returncode == 1
    assert "TOLLGATE_SERVE_PORT" in refused.stderr and "Traceback" not in refused.stderr


def test_feast_of_one_checkout_refuses_the_definitions_of_another(tmp_path: Path) -> None:
    other = tmp_path / "other" / "feature_repo"
    shutil.copytree(REPOSITORY / "feature_repo", other, ignore=shutil.ignore_patterns("__pycache__"))
    feast = "import sys; from feast.cli.cli import cli; sys.argv[0] = 'feast'; cli()"
    done = subprocess.run(
        [sys.executable, "-c", feast, "-c", str(other), "apply"], cwd=REPOSITORY,
        env=os.environ | {"TOLLGATE_HOME": str(tmp_path / "home")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"these are the definitions of {other}" in done.stderr + done.stdout
    assert "bin/tollgate feast" in done.stderr + done.stdout
