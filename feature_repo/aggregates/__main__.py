"""Compute every batch view, or those named, as of one cut, or of every 6-hour cut in a range.

python -m feature_repo.aggregates --cut 2018-07-25T00:00:00Z
python -m feature_repo.aggregates --from 2018-07-01T00:00:00Z --to 2018-08-01T00:00:00Z
"""

from __future__ import annotations

import argparse
from datetime import datetime

from feature_repo.aggregates.grid import cuts_between
from feature_repo.aggregates.run import run_cuts
from feature_repo.spark import print_progress


def main() -> None:
    """The command line; exits with a sentence on a time that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m feature_repo.aggregates", description=__doc__)
    parser.add_argument("--cut", type=datetime.fromisoformat, help="one cut, with its offset")
    parser.add_argument("--from", dest="start", type=datetime.fromisoformat, help="first cut")
    parser.add_argument(
        "--to", dest="end", type=datetime.fromisoformat, help="end of the range, not included"
    )
    parser.add_argument("--views", nargs="+", help="only these batch views, by name")
    chosen = parser.parse_args()
    if (chosen.cut is None) == (chosen.start is None) or (chosen.start is None) != (chosen.end is None):
        parser.error("give either --cut, or --from and --to")
    cuts = [chosen.cut] if chosen.cut else cuts_between(chosen.start, chosen.end)
    if not cuts:
        parser.error("no 6-hour cut lies in that range")
    try:
        written = run_cuts(cuts, progress=print_progress, views=chosen.views)
    except ValueError as error:
        parser.error(str(error))
    for entity, rows in written.items():
        print(f"{entity:24} {rows:>12,} rows")


if __name__ == "__main__":
    main()
