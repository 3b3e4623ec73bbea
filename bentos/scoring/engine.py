"""One worker of the scoring service: what the routes call, and what runs beside them."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from time import perf_counter

from bentos.base.caller import Caller
from bentos.base.guarded import guarded
from bentos.base.metrics import Histogram, Metrics
from bentos.base.problem import Problem, refused
from bentos.base.work import Asked, Work
from bentos.base.worker_metrics import WorkerMetrics
from bentos.log.labels import LabelStore, Reporter, labels_folder, parse_labels, read_summary
from bentos.log.outcomes import OutcomeStore, outcomes_folder, parse_outcomes
from bentos.scoring.batcher import IN_TIME, MicroBatcher, Overloaded
from bentos.scoring.scorer import Scorer
from fraud.contract.times import event_time, replayed_time
from fraud.contract.transaction import ContractError, parse_measured
from machine.beside import start_beside
from machine.garbage import settle
from machine.processors import OwnProcessor, own_processor
from stores.declared import declared
from stores.run_folder import open_run_folder
from stores.settings import Settings

_log = logging.getLogger("tollgate.service")
#: Told of an answer that is there, or of the `Problem` in its place.
Tell = Callable[[asyncio.Future[bytes]], None]
#: Seconds between two looks at connections that are down; the rest is looked at every second.
_TICK = 0.25
#: Transactions in one bulk request, and in all that wait.
LARGEST_BULK_ITEMS = 1024
BULK_QUEUE = 8 * LARGEST_BULK_ITEMS


def _overloaded(error: Overloaded) -> Problem:
    return Problem(503, "(service)", str(error), retry_after=1)


class Engine:
    """Parses, batches, scores. `start` in the event loop that serves; `stop` drains.

    `every_second` are called in that loop, with the metrics, before a second's snapshot of them.
    """

    def __init__(
        self, chosen: Settings, scorer: Scorer, every_second: Sequence[Callable[[Metrics], None]] = ()
    ) -> None:
        self.settings = chosen
        self.metrics = scorer.metrics
        self._declared = declared(chosen)
        self.scorer = scorer
        self._every_second = every_second
        self.labels = LabelStore(chosen.home)
        self.outcomes = OutcomeStore(chosen.home)
        #: Asked to stop: callers are let go.
        self.leaving = False
        self.batcher: MicroBatcher[Work] = MicroBatcher(
            self.scorer.run,
            size=chosen.serve.batch,
            in_flight=chosen.serve.in_flight,
            queue=chosen.serve.queue,
            longest_wait=chosen.serve.wait_ms / 1000,
            turn_away=self._turn_away,
        )
        # Bulk has a queue of its own, so that single requests pass between its batches.
        self.bulk: MicroBatcher[Work] = MicroBatcher(
            self.scorer.run, size=max(128, chosen.serve.batch), in_flight=1, queue=BULK_QUEUE
        )
        self._late_ms = round(1000 * chosen.serve.late_seconds)
        self._strict = chosen.serve.off_clock == "refuse"
        self._workers = WorkerMetrics(self.metrics, open_run_folder(chosen.run))
        self._ticker: asyncio.Task[None] | None = None
        self._converter: subprocess.Popen[bytes] | None = None
        self._processor: OwnProcessor | None = None

    async def start(self) -> None:
        if self.settings.machine.pin:
            self._processor = own_processor(open_run_folder(self.settings.run), self.settings.serve.workers)
        await self.scorer.start()
        self._ticker = asyncio.create_task(self._tick())
        self._convert()
        if self.settings.machine.garbage:
            settle()  # what start-up made stays for good, and a request's objects go by themselves

    async def stop(self) -> None:
        """Finish what is queued, then drain the log and the outbox."""
        if self._ticker is not None:
            self._ticker.cancel()
        await self.batcher.drain()
        await self.bulk.drain()
        await self.scorer.close()
        self.labels.close()
        self.outcomes.close()
        self._workers.write()
        if self._processor is not None:
            self._processor.close()

    @property
    def in_flight(self) -> int:
        """Transactions and batches that are queued or being scored."""
        return self.batcher.waiting + self.batcher.under_way + self.bulk.waiting + self.bulk.under_way

    @property
    def bulk_full(self) -> bool:
        """Whether the queue of bulk requests has no room for another one."""
        return self.bulk.waiting > BULK_QUEUE - LARGEST_BULK_ITEMS

    @property
    def ready(self) -> bool:
        """Whether this worker can take transactions (with or without Redis and a model)."""
        return self._ticker is not None and not self._ticker.done() and not self.leaving

    def parse(self, raw: bytes, caller: Caller) -> Asked:
        """A valid transaction of `caller`, with the time that counts; raise `Problem`."""
        received_us = time.time_ns() // 1000
        try:
            transaction, stated_ms, minor, _ = parse_measured(raw)
            if caller.replays:
                counts = replayed_time(stated_ms, received_us // 1000)
            else:
                counts = event_time(stated_ms, received_us // 1000, self._late_ms, refuse=self._strict)
                self._lateness(caller.name).observe(received_us / 1e6 - stated_ms / 1e3)
        except ContractError as error:
            raise refused(error) from None
        return Asked(transaction, stated_ms, minor, counts, caller, received_us)

    def _lateness(self, client: str) -> Histogram:
        return self.metrics.histogram("event_lateness_seconds", client)

    def submit(
        self,
        asked: Asked,
        arrived: float,
        batcher: MicroBatcher[Work] | None = None,
        tell: Tell | None = None,
    ) -> asyncio.Future[bytes]:
        """Queue a transaction; the future is its answer's JSON or raises `Problem`.

        `arrived` is `perf_counter` when its request did. A repeated request that is under way
        joins the first one. `tell` is called with the future once it is done, perhaps before this
        returns; if this raises, it is not.
        """
        if asked.transaction.attributes is not None:
            try:
                self._declared.admit(asked.transaction)
            except ContractError as error:
                raise refused(error) from None
        work = Work.of(asked, asyncio.get_running_loop().create_future(), arrived)
        work.tell = tell
        stages = self.scorer.stages
        stages.parsed(perf_counter() - arrived)
        work.trace = stages.request()
        joined = self.scorer.once.join(work)
        if joined is not None:
            return joined
        try:
            (batcher or self.batcher).submit(work)
        except Overloaded as error:
            raise _overloaded(error) from None
        self.scorer.once.begin(work)
        return work.future

    def _turn_away(self, work: Work) -> None:
        """Refuse a work that waits: a surge has come upon it."""
        self.scorer.once.finished(work)
        work.refuse(_overloaded(Overloaded(IN_TIME)))

    def score(
        self, raw: bytes, arrived: float, caller: Caller, tell: Tell | None = None
    ) -> asyncio.Future[bytes]:
        """Queue one transaction's JSON; the future is its answer's, and it or this call raises `Problem`.

        In a surge it is turned away unparsed. `tell` as in `submit`.
        """
        try:
            self.batcher.check()
        except Overloaded as error:
            raise _overloaded(error) from None
        return self.submit(self.parse(raw, caller), arrived, tell=tell)

    async def score_many(self, items: Sequence[tuple[bytes, Caller]]) -> list[bytes]:
        """Per transaction's JSON the answer's, or the error's: no item fails its neighbours."""
        arrived = perf_counter()
        futures: list[asyncio.Future[bytes] | Problem] = []
        for raw, caller in items:
            try:
                futures.append(self.submit(self.parse(raw, caller), arrived, self.bulk))
            except Problem as problem:
                futures.append(problem)
        results = []
        for future in futures:
            if isinstance(future, Problem):
                results.append(future.json())
                continue
            try:
                results.append(await future)
            except Problem as problem:
                results.append(problem.json())
        return results

    async def take_labels(self, raw: bytes, reporter: Reporter) -> int:
        """Keep the labels of `reporter`; return how many. Raises `Problem`."""
        try:
            labels = parse_labels(raw, datetime.now(UTC), reporter)
        except ContractError as error:
            raise refused(error) from None
        reporter.spend(len(labels))
        if not await asyncio.to_thread(self.labels.append, labels):
            raise Problem(503, "(service)", "cannot keep labels now; send them again", retry_after=5)
        for label in labels:
            self.metrics.count("labels_total", label.source)
        return len(labels)

    async def take_outcomes(self, raw: bytes, reporter: Reporter) -> int:
        """Keep the outcomes of `reporter`; return how many. Raises `Problem`."""
        try:
            outcomes = parse_outcomes(raw, datetime.now(UTC), reporter)
        except ContractError as error:
            raise refused(error) from None
        reporter.spend(len(outcomes))
        if not await asyncio.to_thread(self.outcomes.append, outcomes):
            raise Problem(503, "(service)", "cannot keep outcomes now; send them again", retry_after=5)
        for outcome in outcomes:
            self.metrics.count("outcomes_total", outcome.kind)
        return len(outcomes)

    def metrics_text(self) -> bytes:
        """Prometheus text of all workers; in any thread (what it reads is copied family by family)."""
        self.metrics.gauge("in_flight", self.in_flight)
        return self._workers.text()

    # -- beside the requests ---------------------------------------------------------------

    async def _tick(self) -> None:
        """What one part stumbles on keeps no other one from its turn."""
        turn = 0
        while True:
            await asyncio.sleep(_TICK)
            turn += 1
            for sink in self.scorer.sinks:
                await guarded("sink", sink.tick)
            if turn % 4 == 0:
                await self._second()

    async def _second(self) -> None:
        for look in self._every_second:
            await guarded("look", partial(look, self.metrics))
        await guarded("scorer", self.scorer.tick)
        await guarded("labels", self._look_at_labels)
        self.metrics.gauge("in_flight", self.in_flight)
        await guarded("metrics", partial(asyncio.to_thread, self._workers.write))
        await guarded("converter", self._convert_again)
        await guarded("journal", partial(asyncio.to_thread, self.scorer.log.sync))

    def _look_at_labels(self) -> None:
        self.labels.tick()
        self.outcomes.tick()
        pending = read_summary(outcomes_folder(self.settings.home))
        self.metrics.gauge("outcomes_waiting", pending.waiting)
        self.metrics.gauge("outcomes_aside", pending.aside)
        waiting = read_summary(labels_folder(self.settings.home))
        self.metrics.gauge("labels_waiting", waiting.waiting)
        self.metrics.gauge("labels_aside", waiting.aside)

    def _convert_again(self) -> None:
        if self._converter is not None and self._converter.poll() is not None:
            self._convert()

    def _convert(self) -> None:
        """Run the conversion to parquet in a process of its own, with this worker's life."""
        self._converter = start_beside(
            self.settings.home, "bentos.log.decision_files", "--follow", str(os.getpid()),
            behind=self.settings.machine.behind,
        )  # fmt: skip
