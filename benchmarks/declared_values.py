"""Standard features of a file of transactions, as one checkout computes them: EVENTS OUT.

Run in two checkouts by `benchmarks.declared`, so it finds modules by their new names or those before, and
needs nothing but the core. OUT (npz) holds the features of every fourth transaction and what it took.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

EVERY = 4


def module(*names: str) -> Any:
    """The first of the modules that this checkout has."""
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ImportError(f"none of {', '.join(names)} is here")


def main(events: Path, out: Path) -> None:
    contract = module("fraud.contract.transaction", "fraud.contract")
    observe = module("fraud.state.observation", "fraud.observation").observe
    velocity = module("fraud.state.velocity", "fraud.velocity")
    joined = module("fraud.state.windows", "fraud.windows").joined
    features = module("fraud.features.on_demand", "fraud.features")
    names = module("fraud.features.feature_list", "fraud.feature_list")
    requested = module("fraud.features.request", "fraud.request").request_values
    entities = module("fraud.features.entities", "fraud.entities").ENTITIES
    transactions = [contract.parse_transaction(line) for line in events.read_bytes().splitlines()]
    profiles = np.random.default_rng(1).lognormal(6, 1, (len(transactions), len(names.PROFILE_INPUTS)))
    states: dict[tuple[int, str], Any] = {}
    asked: list[tuple[list[bytes | None], tuple[int, ...], int]] = []
    added = 0.0
    for number, one in enumerate(transactions):
        seen = observe(one)
        keys = [(place, value) for place, value in enumerate(seen.ids)]
        if number % EVERY == 0:
            packed = [states[key].pack() if key in states else None for key in keys]
            asked.append((packed, requested(one, one.event_ms, one.amount_reference), number))
        begun = time.process_time()
        for place, value in keys:
            if value is not None:
                state = states.get((place, value))
                if state is None:
                    state = states[place, value] = velocity.VelocityState(entities[place])
                state.add(seen, place)
        added += time.process_time() - begun
    rows_of = getattr(features, "request_rows", lambda requests: requests)
    rows = [
        (joined(packed), rows_of([request]), profiles[number : number + 1])
        for packed, request, number in asked
    ]
    features.packed_rows(*rows[0][0], *rows[0][1:])
    matrix, took = [], []
    for _ in range(3):
        begun = time.process_time()
        matrix = [features.packed_rows(words, ends, request, known) for (words, ends), request, known in rows]
        took.append(time.process_time() - begun)
    np.savez(
        out, values=np.concatenate(matrix), names=[each.name for each in names.TRANSACTION_FEATURES],
        add_us=1e6 * added / len(transactions), read_us=1e6 * min(took) / len(rows),
        state_bytes=sum(len(state.pack()) for state in states.values()) / len(states),
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
