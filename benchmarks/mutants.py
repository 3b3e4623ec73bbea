"""`make mutants`: small changes to core code, and whether a test notices -> results/mutants.json.

mutmut (https://mutmut.readthedocs.io) changes one operator, number or argument at a time and runs the tests
that reach it. A change that no test notices has survived: either a test is missing, or the change means
nothing. It works in a copy of the sources, so that what is edited meanwhile is not in its way.

`--changed` takes only the modules that differ from a branch, `--minutes` ends the run: what was not tried by
then is counted as such, and neither as killed nor as survived.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from stores.settings import REPOSITORY, settings

#: By module, the tests that are asked. numba's functions are compiled from their source as it is, and
#: functions with decorators are left as they are.
MODULES: Final[dict[str, tuple[str, ...]]] = {
    "fraud/contract/cards.py": ("tests/fraud/contract/test_cards.py",),
    "fraud/contract/money.py": ("tests/fraud/contract/test_money.py", "tests/fraud/test_contract.py"),
    "fraud/contract/transaction.py": ("tests/fraud/test_contract.py",),
    "fraud/decision/decide.py": ("tests/fraud/decision/test_decide.py",),
    "fraud/decision/experiment.py": ("tests/fraud/decision/test_experiment.py",),
    "fraud/decision/rules.py": ("tests/bentos/rules",),
    "fraud/state/buckets.py": ("tests/fraud/state",),
    "fraud/state/last_seen.py": ("tests/fraud/state",),
    "streaming/ingest/ingest.py": ("tests/streaming/ingest/test_ingest.py",),
    "streaming/ingest/recent_ids.py": ("tests/streaming/ingest/test_ingest.py",),
    "training/promote.py": ("tests/training/test_save_and_promote.py",),
    "training/gates.py": ("tests/training/test_save_and_promote.py",),
    "stores/deployment.py": ("tests/stores", "tests/training/test_save_and_promote.py"),
}
#: What mutmut writes as a mutant's exit code.
_SURVIVED: Final = 0
_KILLED: Final = frozenset({1, 3, 36, 24, 152, 255, -24, -9, -11})
_NO_TEST: Final = frozenset({5, 33})


def changed_since(branch: str) -> list[str]:
    """The modules here that differ from `branch`, committed or not; none where the branch is not known."""
    asked = ["git", "merge-base", "HEAD", branch]
    base = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.strip()
    if not base:
        return []
    command = ["git", "diff", "--name-only", base]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [name for name in MODULES if name in done.stdout.splitlines()]


def mutate(modules: list[str], minutes: float) -> list[dict[str, Any]]:
    """Each of `modules` with its mutants: killed, survived (by name), reached by no test, not tried."""
    with tempfile.TemporaryDirectory(prefix="tollgate-mutants-") as scratch:
        copy = Path(scratch) / "sources"
        _copy(copy)
        packages = sorted(path.parent.name for path in copy.glob("*/__init__.py"))
        tests = sorted({test for name in modules for test in MODULES[name]})
        configuration = {
            "source_paths": [name for name in packages if name != "tests"] + ["benchmarks"],
            "only_mutate": modules,
            "pytest_add_cli_args_test_selection": tests,
            "pytest_add_cli_args": ["-p", "no:cacheprovider", "-q"],
            "also_copy": ["requirements", "docs", "Makefile", "README.md", "bentofile.yaml", "deploy"],
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in configuration.items()]
        flags = ["use_git_change_detection = false", "track_dependencies = false"]
        with (copy / "pyproject.toml").open("a") as file:
            file.write("\n[tool.mutmut]\n" + "\n".join([*lines, *flags]) + "\n")
        command = [
            str(Path(sys.executable).with_name("mutmut")),
            "run",
            "--max-children",
            str(os.cpu_count() or 1),
        ]
        log = settings().results / "mutants.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            try:
                subprocess.run(
                    command,
                    cwd=copy,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=minutes * 60,
                    check=True,
                )
            except subprocess.TimeoutExpired:
                print(f"ended after {minutes:g} minutes: the rest is not tried", file=sys.stderr)
            except subprocess.CalledProcessError as error:
                raise SystemExit(f"mutmut ended with {error.returncode}: see {log}") from None
        return [_outcome(copy / "mutants", name) for name in modules]


def _copy(target: Path) -> None:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY,
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in names:
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)


def _outcome(folder: Path, module: str) -> dict[str, Any]:
    meta = folder / f"{module}.meta"
    codes: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"] if meta.exists() else {}
    kinds = Counter(
        "not_tried" if code is None else "killed" if code in _KILLED else "no_test" if code in _NO_TEST else
        "survived" if code == _SURVIVED else "other"
        for code in codes.values()
    )  # fmt: skip
    return {
        "name": module, "mutants": len(codes) - kinds["not_tried"], "killed": kinds["killed"],
        "no_test": kinds["no_test"], "not_tried": kinds["not_tried"], "other": kinds["other"],
        "survivors": sorted(name for name, code in codes.items() if code == _SURVIVED),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mutants", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=list(MODULES), help="modules; others keep their figures")
    parser.add_argument("--changed", metavar="BRANCH", help="only modules that differ from this branch")
    parser.add_argument("--minutes", type=float, default=120, help="when to end the run")
    parser.add_argument("--least", type=float, default=0.0, help="exit with 1 if a smaller share is killed")
    options = parser.parse_args()
    modules = options.only or (changed_since(options.changed) if options.changed else list(MODULES))
    modules = [name for name in modules if (REPOSITORY / name).exists()]
    if not modules:
        print("no module that is mutated has changed")
        return 0
    path = settings().results / "mutants.json"
    before = json.loads(path.read_text())["modules"] if path.exists() else []
    found = mutate(modules, options.minutes)
    tried, killed = (sum(each[key] for each in found) for key in ("mutants", "killed"))
    kept = [each for each in before if each["name"] not in modules] + found
    every = sum(each["mutants"] for each in kept)
    share = sum(each["killed"] for each in kept) / every if every else 0.0
    result = {"modules": sorted(kept, key=lambda each: str(each["name"])), "killed_share": round(share, 4)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    for each in found:
        figures = f"{each['killed']:4} of {each['mutants']:4} killed, {each['not_tried']} not tried"
        print(f"{each['name']:36} {figures}")
    print(f"{killed} of {tried} mutants killed; what survived: {path}")
    return 0 if not tried or killed / tried >= options.least else 1


if __name__ == "__main__":
    raise SystemExit(main())
