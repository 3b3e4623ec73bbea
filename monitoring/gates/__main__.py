"""`python -m monitoring.gates`: run one gate, print what it found, exit 1 if it blocks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fraud.features.entities import ENTITIES
from monitoring.gates.run import default_history, gate_paths, publish_state, run_gate
from monitoring.gates.suites import GATES, OF_ENTITIES
from stores.settings import settings

DEFAULTS = {
    "raw": "lake/transactions",
    "labels": "lake/labels",
    "training": "training",
    "decisions": "decisions",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a gate over a path, or over every entity where no path is given."""
    chosen = _parser().parse_args(arguments)
    as_of = None
    if chosen.as_of:
        as_of = datetime.fromisoformat(chosen.as_of)
        as_of = as_of.replace(tzinfo=UTC) if as_of.tzinfo is None else as_of.astimezone(UTC)
    docs = None if chosen.no_docs else settings().results / "gates"
    blocked = False
    for path, entity in _subjects(chosen):
        result = run_gate(
            chosen.gate,
            path,
            entity=entity,
            engine=chosen.engine,
            as_of=as_of,
            history=default_history(),
            docs=docs,
        )
        print(result.text(), flush=True)
        blocked = blocked or result.blocked
    publish_state(chosen.gate, blocked)
    return 1 if blocked else 0


def _subjects(chosen: argparse.Namespace) -> list[tuple[Path, str | None]]:
    home = settings().home
    if chosen.path is not None:
        return [(chosen.path, chosen.entity)]
    if chosen.gate in OF_ENTITIES:
        names = [chosen.entity] if chosen.entity else [entity.name for entity in ENTITIES]
        return [(gate_paths(chosen.gate, settings().lake, name), name) for name in names]
    return [(home / DEFAULTS[chosen.gate], None)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monitoring.gates", description="stop bad data by name")
    parser.add_argument("gate", choices=GATES)
    parser.add_argument("path", nargs="?", type=Path, help="parquet file or folder (default: this home's)")
    parser.add_argument("--entity", help="of velocity and profiles; of these a batch view as well")
    parser.add_argument("--engine", choices=("pandas", "spark"), default="pandas")
    parser.add_argument("--as-of", help="the gate's clock, RFC 3339 (default: now)")
    parser.add_argument("--no-docs", action="store_true", help="do not build Data Docs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
