"""Where a batch's time goes: told as each stage has passed, kept as histograms.

A watch is a stopwatch of one batch: batches overlap, so what it knows belongs to the batch. A stage lasts
from the one before it; nobody opens or closes one, so a stage costs a clock and an addition
(a third of a microsecond). `bentos.tracing` makes spans of the same calls.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from time import perf_counter
from typing import Final, Protocol

from bentos.base.metrics import SECONDS, Metrics
from bentos.base.work import Work

#: In the order in which a transaction passes them; `total` is all of them.
STAGES: Final = ("parse", "queue", "features", "vector", "model", "rules", "finish", "total")


class Watch(Protocol):
    """Told about one batch."""

    def passed(self, stage: str, *facts: object) -> None:
        """`stage` is over; `facts` are what it gave, as an observer of outcomes may want them."""

    def answered(self, batch: Sequence[Work]) -> None:
        """These have their answers."""

    def failed(self, error: Exception) -> None:
        """The batch could not be decided."""

    def end(self) -> None:
        """Nothing more comes."""


class Stages(Protocol):
    """Told about every batch of a worker, and about every request."""

    def request(self) -> object:
        """A mark of the request that is being handled, for `Work.trace`; None for nothing."""

    def parsed(self, seconds: float) -> None:
        """A transaction was read, checked and digested."""

    def batch(self, batch: Sequence[Work]) -> Watch:
        """A batch has left the queue."""

    async def close(self) -> None:
        """Give out what is held."""


class StageHistograms:
    """Stages as the histogram `stage_seconds`, and the sizes of batches."""

    def __init__(self, metrics: Metrics) -> None:
        self.seconds = {name: metrics.histogram("stage_seconds", name) for name in STAGES}
        self._sizes = metrics.histogram("batch_size")
        self._parse = self.seconds["parse"]

    def request(self) -> object:
        return None

    def parsed(self, seconds: float) -> None:
        self._parse.observe(seconds)

    def batch(self, batch: Sequence[Work]) -> StageWatch:
        watch, queue = StageWatch(self), self.seconds["queue"]
        for work in batch:
            queue.observe(watch.last - work.arrived)
        self._sizes.observe(len(batch))
        return watch

    async def close(self) -> None:
        return None


class StageWatch:
    """The stopwatch of one batch; `last` is when the newest stage was over."""

    __slots__ = ("_seconds", "last")

    def __init__(self, stages: StageHistograms) -> None:
        self._seconds = stages.seconds
        self.last = perf_counter()

    def passed(self, stage: str, *facts: object) -> None:
        now = perf_counter()
        took, self.last = now - self.last, now
        histogram = self._seconds[stage]  # `observe`, without the call
        histogram.counts[bisect_left(SECONDS, took)] += 1
        histogram.total += took

    def answered(self, batch: Sequence[Work]) -> None:
        done, total = self.last, self._seconds["total"]
        for work in batch:
            total.observe(done - work.arrived)

    def failed(self, error: Exception) -> None:
        return None

    def end(self) -> None:
        return None
