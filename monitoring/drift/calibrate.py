"""Set the drift limits from quiet weeks: `python -m monitoring.drift.calibrate 2026-W05 2026-W06 …`.

Measures each of the weeks against the champion's reference, and writes limits that all of them
would have kept, with a margin, to results/drift/thresholds.json. Choose weeks in which nothing
is known to have changed; six or more give good limits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monitoring.decisions import DecisionLogError, read_decisions, week_bounds
from monitoring.drift.command import champion_folder, read_reference
from monitoring.drift.measures import measure
from monitoring.drift.report import DriftInputError, feature_names, with_decisions
from monitoring.drift.thresholds import FEWEST_WEEKS, Thresholds, calibrate
from stores.decisions import decisions_folder
from stores.settings import settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the limits; 2 for weeks that cannot be used."""
    home = settings().home
    parser = argparse.ArgumentParser(prog="python -m monitoring.drift.calibrate", description=__doc__)
    parser.add_argument("weeks", nargs="+", help="quiet ISO weeks such as 2026-W05")
    parser.add_argument("--reference", type=Path, help="model folder (default: the champion's)")
    parser.add_argument("--current", type=Path, default=decisions_folder(home), help="decision log")
    parser.add_argument("--out", type=Path, default=settings().results / "drift" / "thresholds.json")
    chosen = parser.parse_args(arguments)
    try:
        model = read_reference(chosen.reference or champion_folder(home))
        reference = with_decisions(model.frame, model.decide_at)
        quiet = []
        for week in chosen.weeks:
            start, end = week_bounds(week)
            current = read_decisions(chosen.current, start=start, end=end).to_pandas()
            if not len(current):
                raise DriftInputError(f"no decision in {week}: choose weeks that the log holds")
            columns = [*(model.features or feature_names(reference, current)), "score"]
            columns += ["decision"] if "decision" in reference else []
            found = measure(reference, current, columns, Thresholds())
            quiet.append({column.column: column.values for column in found})
            print(
                f"{week}: {len(current):,} decisions, the strongest column is {found[0].column}", flush=True
            )
    except (DecisionLogError, DriftInputError, ValueError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 2
    calibrate(quiet).save(chosen.out)
    note = "" if len(quiet) >= FEWEST_WEEKS else f"; fewer than {FEWEST_WEEKS} weeks only widen limits"
    print(f"{chosen.out}{note}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
