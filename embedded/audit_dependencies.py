"""Known holes in the locked packages, from what the package index says of each version.

`python -m embedded.audit_dependencies requirements/serving.txt ...` asks the index's JSON interface
(https://docs.pypi.org/api/json/#known-vulnerabilities) for every pinned version. It ends with 1 if one has
a hole that is not withdrawn, and with 0 if none has or if the index cannot be asked from here, which it says.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

INDEX: Final = "https://pypi.org/pypi"
_PINNED: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)", re.MULTILINE)
_SECONDS: Final = 20.0
_LARGEST: Final = 50_000_000
_AT_ONCE: Final = 4


class AskError(RuntimeError):
    """The index did not answer for a package."""


def pinned(files: list[Path]) -> list[tuple[str, str]]:
    """Name and version of every package that the locks pin, once each."""
    return sorted({found for path in files for found in _PINNED.findall(path.read_text())})


def holes(index: str, name: str, version: str) -> list[str]:
    """The known holes of one version, each in a line; raise `AskError`."""
    try:
        with urllib.request.urlopen(f"{index}/{name}/{version}/json", timeout=_SECONDS) as answer:
            said = json.loads(answer.read(_LARGEST))
        return list(_lines(name, version, said.get("vulnerabilities") or []))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise AskError(f"{name} {version}: {type(error).__name__}") from None


def _lines(name: str, version: str, found: list[dict[str, object]]) -> Iterator[str]:
    for hole in found:
        if hole.get("withdrawn"):
            continue
        fixed = ", ".join(map(str, hole.get("fixed_in") or [])) or "nothing yet"  # type: ignore[call-overload]
        yield f"{name} {version}: {hole.get('id')}, fixed in {fixed}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m embedded.audit_dependencies", description=__doc__)
    parser.add_argument("locks", nargs="+", type=Path, help="requirement files with pinned versions")
    parser.add_argument("--index", default=INDEX, help="base of the index's JSON interface")
    options = parser.parse_args(arguments)
    packages = pinned(options.locks)
    found: list[str] = []
    unasked: list[str] = []

    def ask(package: tuple[str, str]) -> None:
        try:
            found.extend(holes(options.index, *package))
        except AskError as error:
            unasked.append(str(error))

    for package in packages[:1]:
        ask(package)
    reached = not unasked
    if reached:  # an index that cannot be reached is asked once, not two hundred times
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(ask, packages[1:]))
    for line in sorted(found):
        print(line)
    total, doubt = len(packages), ""
    if unasked:
        missed = len(unasked) if reached else total
        print(f"{missed} of {total} packages could not be asked about ({unasked[0]})", file=sys.stderr)
        doubt = ", as far as could be asked"
    print(f"{len(found)} known holes in {total} packages{doubt}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
