"""Stages as histograms: a stage lasts from the one before it, in its own batch."""

from __future__ import annotations

import asyncio

import pytest

from bentos.base import stages
from bentos.base.metrics import SECONDS, Metrics
from bentos.base.stages import STAGES, StageHistograms
from bentos.base.work import Work
from tests.bentos.running import transaction


def test_each_stage_of_overlapping_batches_lasts_from_the_one_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [64.0]
    tick = 1 / 1024  # exact, as sums of it are
    monkeypatch.setattr(stages, "perf_counter", lambda: now[0])
    metrics = Metrics()
    watched = StageHistograms(metrics)
    assert set(watched.seconds) == set(STAGES)

    def waited(since: int) -> Work:
        return Work(transaction(), future, 64.0 + since * tick)

    loop = asyncio.new_event_loop()
    future: asyncio.Future[bytes] = loop.create_future()
    #  ticks  -4 ......... 0 ......... 2 ......... 5 ......... 9
    #  first   queue 4     features 2              model 7       total 13
    #  second        queue 1 and 2     features 3                total 4 and 5
    first = watched.batch([waited(-4)])
    now[0] += 2 * tick
    first.passed("features", "facts", "are", "ignored")
    second = watched.batch([waited(1), waited(0)])
    now[0] += 3 * tick
    second.passed("features")
    second.answered([waited(1), waited(0)])
    now[0] += 4 * tick
    first.passed("model")
    first.answered([waited(-4)])
    loop.close()
    sums = {name: histogram.total / tick for name, histogram in watched.seconds.items()}
    assert sums == {
        "parse": 0, "queue": 4 + 1 + 2, "features": 2 + 3, "vector": 0, "model": 7, "rules": 0, "finish": 0,
        "total": 13 + 4 + 5,
    }  # fmt: skip
    # 2/1024 and 3/1024 are below these bounds, and above the ones before.
    counts = watched.seconds["features"].counts
    assert [SECONDS[place] for place, count in enumerate(counts) if count] == [0.002, 0.003]
    assert metrics.histogram("batch_size").counts[:2] == [1, 1]
