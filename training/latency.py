"""How long one row takes and how large a model is, measured as the service calls it."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from training.model import Model


def measure(model: Model, features: NDArray[np.float64], *, calls: int = 300) -> dict[str, float]:
    """Median and 99th percentile microseconds of one row, one thread; text bytes; trees."""
    rows = np.ascontiguousarray(features[:calls])
    model.raw(rows[:1], threads=1)
    spent = []
    for place in range(len(rows)):
        started = time.perf_counter_ns()
        model.raw(rows[place : place + 1], threads=1)
        spent.append((time.perf_counter_ns() - started) / 1e3)
    started = time.perf_counter_ns()
    model.raw(rows, threads=1)
    together = (time.perf_counter_ns() - started) / 1e3 / max(len(rows), 1)
    return {
        "one_row_p50_us": float(np.percentile(spent, 50)),
        "one_row_p99_us": float(np.percentile(spent, 99)),
        "batched_us_a_row": together,
        "bytes": float(len(model.text.encode())),
        "trees": float(model.booster.num_trees()),
    }
