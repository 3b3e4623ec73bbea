"""Small inputs from real life through the doors they would come by: `results/cases.json`.

    python -m benchmarks.cases FOLDER

FOLDER holds YAML files of cases: `name`, what is `right`, and what is sent. Imports run as `tollgate import`
does, bodies of the scoring API over HTTP against a service that this starts. Each case has a check, in a
module beside this one, that knows what is right; a case without one, or that fails it, is not held.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks import cases_events, cases_import, cases_score
from stores.settings import settings

#: Whether a case is held and what was seen, from the case and its file's text; None where nothing knows it.
Try = Callable[[Mapping[str, Any], str], tuple[bool, str] | None]
#: Who knows what is right, by the file of the cases.
DOORS: Final[dict[str, Try]] = {
    "import.yaml": cases_import.try_case,
    "score.yaml": cases_score.try_case,
    "events.yaml": cases_events.try_case,
}


def cases(folder: Path) -> list[dict[str, Any]]:
    """Every case of `folder`, whether it is held, and what was seen."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.yaml")):
        text, door = path.read_text(), DOORS.get(path.name)
        for case in yaml.safe_load(text)["cases"]:
            held, seen = False, "not tried here"
            try:
                tried = door(case, text) if door else None
                if tried is not None:
                    held, seen = tried
            except (AssertionError, ValueError, LookupError) as error:
                seen = f"{type(error).__name__}: {error}"
            found.append({"file": path.name, "name": case["name"], "held": bool(held), "seen": seen})
    return found


def main() -> None:
    """Write `results/cases.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cases")
    parser.add_argument("folder", type=Path, help="a folder of YAML files of cases")
    found = cases(parser.parse_args().folder)
    out = settings().results / "cases.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n")
    for case in found:
        print(
            f"{'held' if case['held'] else 'NOT HELD':9} {case['file']} {case['name']}: {case['seen'][:150]}"
        )
    print(f"{sum(case['held'] for case in found)} of {len(found)} held: {out}")


if __name__ == "__main__":
    main()
