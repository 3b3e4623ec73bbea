"""`make mutants`: small changes to core code, and whether a test notices -> results/mutants.json.

mutmut (https://mutmut.readthedocs.io) changes one operator, number, text or argument at a time and runs the
tests that reach it, in a fork of a process that has imported them. A change that no test notices has
survived: either a test is missing, or the change means nothing. Why each survivor was let live stands in
`mutants_explained.yaml`, and is printed with it; one that is not there is marked so.

Each module is asked of the tests beside it alone, quickest first, up to the first that fails. It works in a
copy of the sources, so that what is edited meanwhile is not in its way. `--changed` takes only the modules
that differ from a branch, `--minutes` ends the run: what was not tried by then is counted as such, and
neither as killed nor as survived.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from stores.settings import REPOSITORY, settings

#: By module, the tests that are asked. numba's functions are compiled from their source as it is, and
#: functions with decorators are left as they are.
MODULES: Final[dict[str, tuple[str, ...]]] = {
    "fraud/contract/cards.py": ("tests/fraud/contract/test_cards.py",),
    "fraud/contract/money.py": ("tests/fraud/contract/test_money.py",),
    "fraud/contract/transaction.py": (
        "tests/fraud/contract/test_refusals.py",
        "tests/fraud/contract/test_canonical.py",
    ),
    "fraud/contract/fields.py": ("tests/fraud/contract/test_refusals.py",),
    "fraud/contract/attributes.py": ("tests/fraud/contract/test_refusals.py",),
    "fraud/decision/decide.py": ("tests/fraud/decision/test_decide.py",),
    "fraud/decision/experiment.py": ("tests/fraud/decision/test_experiment.py",),
    "fraud/decision/rules.py": ("tests/fraud/decision/test_rules.py",),
    "fraud/state/buckets.py": ("tests/fraud/state/test_buckets.py",),
    "fraud/state/last_seen.py": ("tests/fraud/state/test_last_seen.py",),
    "streaming/ingest/ingest.py": ("tests/streaming/ingest/test_ingest.py",),
    "streaming/ingest/recent_ids.py": ("tests/streaming/ingest/test_recent_ids.py",),
    "training/promote.py": ("tests/training/test_promotion_steps.py",),
    "training/gates.py": ("tests/training/test_promotion_gates.py",),
    "stores/deployment.py": ("tests/stores/test_deployment.py",),
}
EXPLAINED: Final = Path(__file__).with_name("mutants_explained.yaml")
#: What mutmut writes as a mutant's exit code.
_SURVIVED: Final = 0
_KILLED: Final = frozenset({1, 3, 36, 24, 152, 255, -24, -9, -11})
_NO_TEST: Final = frozenset({5, 33})
#: pytest is set up anew in each fork: with these plugins alone, and without its own that cost the most.
_PLUGINS: Final = ("pytest_timeout", "_hypothesis_pytestplugin", "benchmarks.mutants_plugin")
_WITHOUT: Final = ("cacheprovider", "unraisableexception", "threadexception", "faulthandler", "junitxml")


def changed_since(branch: str) -> list[str]:
    """The modules here that differ from `branch`, committed or not; none where the branch is not known."""
    asked = ["git", "merge-base", "HEAD", branch]
    base = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.strip()
    if not base:
        return []
    command = ["git", "diff", "--name-only", base]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [name for name in MODULES if name in done.stdout.splitlines()]


def mutate(modules: list[str], minutes: float, children: int) -> Iterator[dict[str, Any]]:
    """Each of `modules` with its mutants: killed, survived (as changes), reached by no test, not tried."""
    ends = time.monotonic() + minutes * 60
    log = settings().results / "mutants.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="tollgate-mutants-") as scratch:
        copy = Path(scratch) / "sources"
        _copy(copy)
        plain = (copy / "pyproject.toml").read_text()
        for name in modules:
            began = time.monotonic()
            (copy / "pyproject.toml").write_text(plain + _configuration(copy, name))
            shutil.rmtree(copy / "mutants", ignore_errors=True)
            _run(copy, log, ends - began, children)
            found = _outcome(copy / "mutants", name)
            yield found | {"seconds": round(time.monotonic() - began, 1)}


def _configuration(copy: Path, module: str) -> str:
    packages = sorted(path.parent.name for path in copy.glob("*/__init__.py"))
    words = [word for name in (*(f"no:{name}" for name in _WITHOUT), *_PLUGINS) for word in ("-p", name)]
    words += ["--hypothesis-profile=mutants", "-q"]
    chosen = {
        "source_paths": [name for name in packages if name != "tests"] + ["benchmarks"],
        "only_mutate": [module],
        "pytest_add_cli_args_test_selection": list(MODULES[module]),
        "pytest_add_cli_args": words,
        "also_copy": ["requirements", "docs", "Makefile", "README.md", "bentofile.yaml", "deploy"],
        "use_git_change_detection": False,
        # A mutant that never ends is dead; a busy machine must not make it look as if others were.
        "timeout_constant": 4.0,
        "track_dependencies": False,
    }
    return "\n[tool.mutmut]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in chosen.items())


def _run(copy: Path, log: Path, seconds: float, children: int) -> None:
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(children)]
    with log.open("ab") as output:
        try:
            subprocess.run(
                command,
                cwd=copy,
                env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=max(seconds, 0),
                check=True,
            )
        except subprocess.TimeoutExpired:
            print("out of time: the rest is not tried", file=sys.stderr)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"mutmut ended with {error.returncode}: see {log}") from None


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
    living = [name for name, code in codes.items() if code is not None and code not in _KILLED]
    return {
        "name": module, "mutants": len(codes) - kinds["not_tried"], "killed": kinds["killed"],
        "no_test": kinds["no_test"], "not_tried": kinds["not_tried"], "other": kinds["other"],
        "survivors": _changes(folder, module, living),
    }  # fmt: skip


def _changes(folder: Path, module: str, living: list[str]) -> list[dict[str, Any]]:
    """What each mutant of `module` changed in which function, and why it was let live (None: unexplained)."""
    if not living:
        return []
    source = (folder / module).read_text()
    lines = source.splitlines()
    functions = {
        node.name: lines[node.lineno - 1 : node.end_lineno]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    explained = {
        (each["function"], _lines(each["to"])): each["why"]
        for each in (yaml.safe_load(EXPLAINED.read_text()) or {}).get(module, [])
    }
    found = []
    for name in living:
        mangled = name.rpartition(".")[2]
        stem = mangled.partition("__mutmut_")[0]
        function = stem.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
        before, after = (
            [line.replace(f"def {given}", f"def {function.rpartition('.')[2]}") for line in functions[given]]
            for given in (f"{stem}__mutmut_orig", mangled)
        )
        differing = [line for line in difflib.ndiff(before, after) if line[0] in "-+" and line[2:].strip()]
        change = {
            "function": function,
            "from": [line[2:].strip() for line in differing if line[0] == "-"],
            "to": [line[2:].strip() for line in differing if line[0] == "+"],
        }
        # By what it changed: the numbers of mutants shift whenever a line is added above.
        why = explained.get((function, tuple(change["to"])))
        found.append(change | {"why": why})
    return found


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mutants", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=list(MODULES), help="modules; others keep their figures")
    parser.add_argument("--changed", metavar="BRANCH", help="only modules that differ from this branch")
    parser.add_argument("--minutes", type=float, default=60, help="when to end the run")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="mutants asked at a time")
    parser.add_argument("--least", type=float, default=0.0, help="exit with 1 if a smaller share is killed")
    options = parser.parse_args()
    modules = options.only or (changed_since(options.changed) if options.changed else list(MODULES))
    modules = [name for name in modules if (REPOSITORY / name).exists()]
    if not modules:
        print("no module that is mutated has changed")
        return 0
    path = settings().results / "mutants.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {each["name"]: each for each in json.loads(path.read_text())["modules"]} if path.exists() else {}
    tried = killed = unexplained = 0
    for each in mutate(modules, options.minutes, options.children):
        kept[each["name"]] = each
        every, dead = (sum(found[key] for found in kept.values()) for key in ("mutants", "killed"))
        result = {
            "modules": sorted(kept.values(), key=lambda found: str(found["name"])),
            "killed_share": round(dead / every, 4) if every else 0.0,
        }
        path.write_text(json.dumps(result, indent=2) + "\n")
        tried, killed = tried + each["mutants"], killed + each["killed"]
        unexplained += _print(each)
    print(f"{killed} of {tried} mutants killed, {unexplained} survivors that nobody explains: {path}")
    return 0 if not tried or killed / tried >= options.least else 1


def _print(found: dict[str, Any]) -> int:
    """Show a module's figures and its survivors; return how many of these nobody explains."""
    print(
        f"{found['name']}: {found['killed']} of {found['mutants']} killed in {found['seconds']:.0f} s"
        + (f", {found['not_tried']} not tried" if found["not_tried"] else ""),
        flush=True,
    )
    for each in found["survivors"]:
        print(f"  {each['function']}: {each['why'] or 'NOT EXPLAINED'}")
        for sign, lines in (("-", each["from"]), ("+", each["to"])):
            print("".join(f"    {sign} {line}\n" for line in lines), end="")
    return sum(each["why"] is None for each in found["survivors"])


if __name__ == "__main__":
    raise SystemExit(main())
