"""`python -m monitoring.dashboards`: write every dashboard as Grafana reads it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from monitoring.dashboards.boards import BOARDS
from monitoring.dashboards.panels import to_json

FOLDER = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files and print their names."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.dashboards", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the JSON files")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        path = chosen.out / f"{board.uid}.json"
        path.write_text(to_json(board))
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
