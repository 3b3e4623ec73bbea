"""What ``feast apply`` would change, before it does: ``python -m feature_repo.plan``.

Reads a team's own definitions, holds them against what was applied last, and says what is new, changed or
gone, what it costs and what has to be rebuilt. Exit code 1, with file and line, for definitions that cannot
be used.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import yaml

from feature_repo.collect import declarations_of, own_folder, read_own, settled_from, stored
from feature_repo.declare import DeclarationError
from fraud.declared.declaration import Declarations, StreamView, named
from fraud.declared.layout import Layout, layout_of
from fraud.declared.loops import read_states
from fraud.declared.seen import DeclaredSeen
from fraud.declared.state import DeclaredState
from fraud.features.checks import meanings_of
from fraud.features.plan import shipped
from stores.settings import Settings, settings

#: Events a day of the entity that prices are given for.
PRICED: Final = (10, 1_000)
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class ViewPrice:
    """What a stream view costs: bytes of a state and microseconds to read it, at so many events a day."""

    view: str
    events_a_day: int
    state_bytes: int
    read_us: float
    most_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen; each list is names in order, `models` and `rules` those that see what changes."""

    new: tuple[str, ...]
    gone: tuple[str, ...]
    new_views: tuple[str, ...]
    relaid: tuple[str, ...]
    served: int
    prices: tuple[ViewPrice, ...]
    models: tuple[str, ...]
    rules: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    standard: int = 0

    @property
    def rebuild(self) -> tuple[str, ...]:
        """Views whose history the stream does not have."""
        return (*self.new_views, *self.relaid)


def plan_of(after: Declarations, before: Declarations, chosen: Settings) -> Plan:
    """The difference between what was applied last and what would be."""
    old = meanings_of(before.standard or shipped()) | named(before)
    new = meanings_of(after.standard or shipped()) | named(after)
    known = {view.name: layout_of(view).digest for view in before.streams}
    gone = tuple([name for name in old if name not in new])
    return Plan(
        new=tuple([name for name in new if name not in old]),
        gone=gone,
        new_views=tuple([view.name for view in after.streams if view.name not in known]),
        relaid=tuple(
            [
                view.name
                for view in after.streams
                if view.name in known and known[view.name] != layout_of(view).digest
            ]
        ),
        served=len(_standard_row(after)) + len(after.order),
        standard=len(_standard_row(after)),
        prices=tuple([price for view in after.streams for price in prices_of(view)]),
        models=_models_with(gone, chosen),
        rules=_rules_with(gone, chosen),
        attributes=tuple([each.name for each in after.attributes]),
    )


def _standard_row(declared: Declarations) -> list[str]:
    """The platform's own features in a served row."""
    standard = declared.standard or shipped()
    columns = {each.name for view in standard.batches for each in view.figures}
    made = [each.name for view in standard.velocities for each in view.figures]
    listed = [name for name in standard.service if name in columns]
    return [*listed, *made, *[each.name for each in standard.requests]]


def prices_of(view: StreamView) -> list[ViewPrice]:
    """What the view costs here, measured on states of made-up events."""
    layout = layout_of(view)
    return [_price(layout, events) for events in PRICED]


def _price(layout: Layout, events_a_day: int) -> ViewPrice:
    days = min(layout.retention_ms, 30 * _DAY_MS) / _DAY_MS
    count = min(int(events_a_day * days) + 1, 20_000)
    step = _DAY_MS // events_a_day
    state = DeclaredState(layout, 0)
    keys = [place.to_bytes(6, "little") for place in range(1, 33)]
    at = 1_760_000_000_000
    for number in range(count):
        at += step
        values = [float(number % 97)] * len(layout.values)
        tables = [keys[number % len(keys)]] * len(layout.tables)
        state.add(DeclaredSeen(at, layout.record.pack(at, number << 32, *values, *tables)))
    data = state.pack()
    words, ends = np.frombuffer(data, dtype=np.int64), np.array([0, len(data) // 8])
    hashes = np.zeros((1, len(layout.tables)), dtype=np.int64)
    asked, matrix = np.zeros((1, len(layout.values))), np.empty((1, len(layout.names)))
    shape, times = layout.shape, np.array([at + 1])

    def read() -> None:
        read_states(
            words, ends, shape, layout.operations, times, layout.ttl_ms, hashes, asked, matrix
        )  # fmt: skip

    read()
    begun = time.process_time()
    for _ in range(200):
        read()
    microseconds = (time.process_time() - begun) * 5_000
    return ViewPrice(layout.view, events_a_day, len(data), round(microseconds, 1), layout.most_bytes())


def _models_with(names: Sequence[str], chosen: Settings) -> tuple[str, ...]:
    """Models of the store that see one of `names`."""
    found = []
    for path in sorted((chosen.home / "bentoml" / "models" / "tollgate_fraud").glob("*/manifest.json")):
        features = json.loads(path.read_bytes()).get("features", [])
        if set(names) & {each["name"] if isinstance(each, dict) else each for each in features}:
            found.append(path.parent.name)
    return tuple(found)


def _rules_with(names: Sequence[str], chosen: Settings) -> tuple[str, ...]:
    """Rules in force that read one of `names`."""
    path = Path(chosen.serve.rules_file) if chosen.serve.rules_file else None
    if path is None or not path.exists():
        return ()
    rules = (yaml.safe_load(path.read_bytes()) or {}).get("rules") or []
    return tuple([each["name"] for each in rules if any(name in str(each.get("when")) for name in names)])


def text_of(plan: Plan) -> str:
    """The plan for a person."""
    lines = []
    for title, names in (("new", plan.new), ("gone", plan.gone)):
        lines.append(f"{title:>8}: {', '.join(names) or 'nothing'}")
    lines.append(f"{'served':>8}: {plan.served} features a row, {plan.standard} of them standard")
    lines += [
        f"{price.view}: {price.state_bytes:,} bytes a state and {price.read_us:.1f} us a row at "
        f"{price.events_a_day:,} events a day (at most {price.most_bytes:,} bytes)"
        for price in plan.prices
    ]
    lines += [f"{view}: its layout changes; its states start anew and warm up" for view in plan.relaid]
    if plan.rebuild:
        views = " ".join(plan.rebuild)
        lines.append(
            "to have their history from the start, once the stream has taken them up:\n"
            f"    python -m feature_repo.velocity_log --views {views} --from FIRST --to TODAY\n"
            f"    python -m streaming.states.seed --views {views}"
        )
    for kind, names in (("models", plan.models), ("rules", plan.rules)):
        if names:
            lines.append(f"{kind} that see what is gone, null from then on: {', '.join(names)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what would happen; 1 if the definitions cannot be used."""
    argparse.ArgumentParser(prog="python -m feature_repo.plan", description=__doc__).parse_args(arguments)
    chosen = settings()
    before = stored(chosen)
    try:
        after = declarations_of(read_own(own_folder(chosen)), before, settled_from(chosen))
    except DeclarationError as error:
        print(error, file=sys.stderr)
        return 1
    print(text_of(plan_of(after, before, chosen)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
