"""What declared features cost, how exact they are, and whether the standard ones are what they were.

    make bench-declared BASE=path      # a checkout of the commit to compare with, installed

Writes results/bench/declared.json: `default` holds standard features here against those of BASE, value by
value, and their cost as ratios, in turns; `own` prices the tutorial's features; `accuracy` holds every
function to its stated bound over bursts of events, `distinct` many different values; `prices` has each
function's cost and `stream` that of forty features.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.declared_accuracy import accuracy, distinct
from benchmarks.declared_prices import prices, stream_with_forty
from feature_repo.collect import declarations_of, read_own
from fraud.contract.transaction import Transaction
from fraud.declared.declaration import Declarations
from fraud.declared.state import DeclaredState
from fraud.state.observation import observe
from stores.declared import Declared
from stores.settings import REPOSITORY, settings
from streaming.log.load import Load, events

EVENTS: Final = 24_000
TURNS: Final = 3


def standard(base: Path | None) -> dict[str, Any]:
    """Standard features of one load here and in `base`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        load = Load(EVENTS, customers=2_000, merchants=60, late=0.01, step_ms=4_000)
        path.write_bytes(b"\n".join(event.payload for event in events(load, 1)))
        here, there = [], []
        for _ in range(TURNS):  # in turns: the machine has other work
            here.append(_values(REPOSITORY, path, Path(folder) / "here.npz"))
            if base is not None:
                there.append(_values(base, path, Path(folder) / "there.npz"))
    found = here[0]
    report: dict[str, Any] = {
        "features": int(found["values"].shape[1]), "rows": int(found["values"].shape[0]),
        "add_us": float(min(each["add_us"] for each in here)),
        "read_us": float(min(each["read_us"] for each in here)),
        "state_bytes": round(float(found["state_bytes"])),
    }  # fmt: skip
    if there:
        names = found["names"].tolist()
        old, new = there[0]["values"], found["values"]
        other = ~((old == new) | (np.isnan(old) & np.isnan(new)))
        # A full table called a partner new that was not: the other side of the pair knows better.
        mended = other & (old == 1.0) & (new == 0.0)
        mended &= np.array([bool(re.search(r"_new_\w+_24h$", name)) for name in names])
        report |= {
            "values_compared": int(old.size), "different": int((other & ~mended).sum()),
            "different_by_feature": {
                name: int(count)
                for name, count in zip(names, (other & ~mended).sum(axis=0), strict=True)
                if count
            },
            "pairs_no_longer_called_new": int(mended.sum()),
            "ratio_add": round(report["add_us"] / float(min(each["add_us"] for each in there)), 3),
            "ratio_read": round(report["read_us"] / float(min(each["read_us"] for each in there)), 3),
            "ratio_state_bytes": round(float(found["state_bytes"] / there[0]["state_bytes"]), 3),
        }  # fmt: skip
    return report


def _values(checkout: Path, path: Path, out: Path) -> dict[str, Any]:
    script = REPOSITORY / "benchmarks" / "declared_values.py"
    python = checkout / ".venv" / "bin" / "python"
    subprocess.run(
        [str(python if python.exists() else sys.executable), "-P", str(script), str(path), str(out)],
        cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)}, check=True,
    )  # fmt: skip
    with np.load(out) as found:
        return {name: found[name] for name in found.files}


def own_features() -> dict[str, Any]:
    """What the tutorial's features cost in the stream, beside the standard ones."""
    page = (REPOSITORY / "docs" / "your-own-feature.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cards.py").write_text(found.group(1), encoding="utf-8")
        declared = Declared(declarations_of(read_own(Path(folder)), Declarations(), 0))
    transactions = [
        event.transaction
        for event in events(Load(6_000, customers=200, step_ms=60_000), 1)
        if event.transaction
    ]
    states: dict[tuple[int, str], DeclaredState] = {}
    begun = time.process_time()
    for one in transactions:
        _tell(declared, one, states)
    add_us = 1e6 * (time.process_time() - begun) / len(transactions)
    sizes: dict[str, list[int]] = {}
    for (place, _), state in states.items():
        sizes.setdefault(declared.observers[place].layout.view, []).append(len(state.pack()))
    return {
        "lines": len(found.group(1).splitlines()), "files_touched": 1,
        "features": len(declared.declarations.order),
        "event_us": round(add_us, 1),
        "state_bytes": {view: round(sum(each) / len(each)) for view, each in sizes.items()},
    }  # fmt: skip


def _tell(declared: Declared, one: Transaction, states: dict[tuple[int, str], DeclaredState]) -> None:
    seen = observe(one)
    values = declared.event_values(one, seen.amount)
    for place, observer in enumerate(declared.observers):
        key = observer.key(values)
        if key is not None:
            state = states.get((place, key))
            if state is None:
                state = states[place, key] = DeclaredState(observer.layout)
            state.add(observer.seen(seen.event_ms, seen.transaction_key, values))


def main() -> int:
    """Write the report; 1 if a standard value differs or a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.declared", description=__doc__)
    parser.add_argument("--base", type=Path, help="an installed checkout of the commit to compare with")
    chosen = parser.parse_args()
    report = {
        "default": standard(chosen.base.resolve() if chosen.base else None),
        "own": own_features(),
        "accuracy": accuracy(),
        "distinct": distinct(),
        "prices": prices(),
        "stream": stream_with_forty(),
    }
    path = settings().results / "bench" / "declared.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    broken = [each for each in report["accuracy"] if each["worst_error"] > each["bound"] + 1e-6]  # type: ignore[index]
    many: dict[str, Any] = report["distinct"]  # type: ignore[assignment]
    if many["worst_error"] > many["bound"] or many["median_error"] > many["median_bound"]:
        broken.append({"function": "count_distinct", **many})
    for each in broken:
        print(f"beyond its bound: {each}", file=sys.stderr)
    print(json.dumps({"default": report["default"], "own": report["own"]}, indent=1))
    return 1 if broken or report["default"].get("different") else 0  # type: ignore[attr-defined]


if __name__ == "__main__":
    raise SystemExit(main())
