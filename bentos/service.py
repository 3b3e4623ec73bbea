"""The scoring service: `bentoml serve bentos.service:FraudScorer`. The one place that assembles it.

What the settings choose between is chosen here and nowhere else: the protocol of the server (the lane or
the bounded one alone), who observes stages (histograms, or spans beside them), what stands around BentoML's
application. `POST /v1/score` is answered by `bentos.api.edge`, outside BentoML's middlewares; the typed
method of the same path serves BentoML clients, OpenAPI and in-process calls through the same code.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from time import perf_counter
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # before BentoML reads it: no phoning home

import bentoml

from bentos.api.access import Access, open_access
from bentos.api.admitted import require_admitted
from bentos.api.api_models import (
    BulkAnswer,
    BulkRequest,
    LabelAnswer,
    LabelRequest,
    OutcomeRequest,
    ScoreAnswer,
    ScoreRequest,
)
from bentos.api.bounded_http import BoundedHttp, Door, bounds_of
from bentos.api.departure import depart_slowly
from bentos.api.edge import BULK_PATH, Edge
from bentos.api.exchange import App
from bentos.api.explain import explain
from bentos.api.metrics_page import open_port
from bentos.api.openapi import document
from bentos.api.score_lane import ScoreLane, install
from bentos.base.caller import Caller
from bentos.base.logs import configure_logs
from bentos.base.metrics import Metrics
from bentos.base.problem import Problem
from bentos.base.stages import StageHistograms, Stages
from bentos.base.worker_metrics import library_folder
from bentos.log.labels import Reporter
from bentos.scoring.engine import Engine
from bentos.scoring.scorer import Scorer
from stores.run_folder import open_run_folder
from stores.settings import Settings, settings


class ScoringService(bentoml.Service):  # type: ignore[misc]  # BentoML ships no stubs for it
    """BentoML's service with `Edge` around its application, and what one worker of it holds."""

    engine: Engine | None = None
    edge: Edge | None = None
    _metrics_port: asyncio.Server | None = None

    def to_asgi(self, is_main: bool = True) -> Any:
        """The application; only the main one has callers, another's typed methods refuse everybody."""
        app = super().to_asgi(is_main=is_main)
        if not is_main:
            return app
        chosen = settings()
        # BentoML would keep its counters in its home, which other hosts may share, and whose processes
        # have the same numbers.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(library_folder(open_run_folder(chosen.run)))
        self.edge = open_edge(app, lambda: self.engine, self.access, chosen)
        lane = chosen.http.lane and not chosen.serve.tracing  # a request in the lane is no span
        door = Door(bounds_of(chosen), self.edge.refused, Counter())
        install(ScoreLane if lane else BoundedHttp, door, siblings=chosen.serve.workers > 1)
        return self.edge

    @cached_property
    def access(self) -> Access:
        return open_access(settings())

    async def begin(self) -> None:
        """Open what a worker needs; before this, nothing listens."""
        chosen = settings()
        engine = open_engine(chosen, (self.access.look,))
        await engine.start()
        self.engine = engine
        depart_slowly(chosen.serve.leave_seconds, partial(setattr, engine, "leaving", True))
        if self.edge is not None and chosen.http.metrics_port:
            self._metrics_port = await open_port(self.edge.page, self.edge.refused, chosen)

    async def end(self) -> None:
        """Finish what is under way and drain the log."""
        if self._metrics_port is not None:
            self._metrics_port.close()
        if self.engine is not None:
            await self.engine.stop()
            self.engine = None


def open_engine(chosen: Settings, every_second: Sequence[Callable[[Metrics], None]] = ()) -> Engine:
    """An engine that is not started."""
    metrics = Metrics()
    stages: Stages = StageHistograms(metrics)
    if chosen.serve.tracing:
        from bentos.tracing import StageSpans, tracer_provider  # OpenTelemetry is loaded only when asked for

        stages = StageSpans(StageHistograms(metrics), tracer_provider())
    return Engine(chosen, Scorer(chosen, metrics, stages), every_second)


def open_edge(app: App, engine: Callable[[], Engine | None], access: Access, chosen: Settings) -> Edge:
    """The outermost layer around `app`."""
    observed = None
    if chosen.serve.tracing:
        from bentos.tracing import traced, tracer_provider

        observed = partial(traced, provider=tracer_provider())
    return Edge(app, engine, access, documents=chosen.http.docs, document=document, observed=observed)


@bentoml.service(
    name="FraudScorer",
    service_class=ScoringService,
    workers=settings().serve.workers,
    traffic={"timeout": 10.0},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": True, "namespace": "bentoml_service"},
)
class FraudScorer:
    """Scores card transactions and answers APPROVE, REVIEW or BLOCK."""

    bento_service: ScoringService

    @bentoml.on_startup
    async def begin(self) -> None:
        configure_logs(settings().log_level)
        await self.bento_service.begin()

    @bentoml.on_shutdown
    async def end(self) -> None:
        await self.bento_service.end()

    async def __is_ready__(self) -> bool:
        engine = self.bento_service.engine
        if engine is None or not engine.ready:
            return False
        return not settings().serve.needs_model or engine.scorer.scores.room.current.champion is not None

    def _admit(self) -> tuple[Engine, Caller]:
        """The engine, for a call that the edge has let in, and whose it is."""
        caller, engine = require_admitted(), self.bento_service.engine
        if engine is None:
            raise Problem(503, "(service)", "is starting", retry_after=1)
        return engine, caller

    @bentoml.api(route="/v1/score")
    async def score(self, transaction: ScoreRequest, /) -> ScoreAnswer:
        """Decide one transaction. The same id and body gives the same answer for 24 hours."""
        raw = transaction.model_dump_json(exclude_none=True).encode()
        engine, caller = self._admit()
        return ScoreAnswer.model_validate_json(await engine.score(raw, perf_counter(), caller))

    @bentoml.api(
        route=BULK_PATH,
        batchable=True,
        max_batch_size=1024,
        max_latency_ms=10_000,
        input_spec=BulkRequest,
        output_spec=BulkAnswer,
    )
    async def score_batch(self, transactions: list[tuple[bytes, Caller]]) -> list[bytes]:
        """Decide up to 1,024 transactions; each gets its own answer or its own error."""
        engine = self.bento_service.engine
        assert engine is not None  # `BulkRequest` was let in
        return await engine.score_many(transactions)

    @bentoml.api(route="/v1/labels")
    async def labels(self, label: LabelRequest, /) -> LabelAnswer:
        """Report a chargeback or an analyst's verdict. Answered with 202 once it is on disk."""
        raw = label.model_dump_json(exclude_none=True).encode()
        engine, caller = self._admit()
        return LabelAnswer(accepted=await engine.take_labels(raw, Reporter(caller.name, ids=caller.ids)))

    @bentoml.api(route="/v1/outcomes")
    async def outcomes(self, outcome: OutcomeRequest, /) -> LabelAnswer:
        """Report what became of a payment. Answered with 202 once it is on disk."""
        raw = outcome.model_dump_json(exclude_none=True).encode()
        engine, caller = self._admit()
        return LabelAnswer(accepted=await engine.take_outcomes(raw, Reporter(caller.name, ids=caller.ids)))

    @bentoml.api(route="/v1/explain")
    async def explain(self, transaction: ScoreRequest, /) -> dict[str, Any]:
        """Exact SHAP values of one transaction; decides and logs nothing."""
        raw = transaction.model_dump_json(exclude_none=True).encode()
        return await explain(*self._admit(), raw)
