"""The scoring service: `bentoml serve bentos.service:FraudScorer`.

`POST /v1/score` is answered by `bentos.api.edge`, outside BentoML's middlewares; the typed method of
the same path serves BentoML clients, OpenAPI and in-process calls through the same code.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # before BentoML reads it: no phoning home

import bentoml

from bentos.api.admitted import require_admitted
from bentos.api.api_models import (
    BulkAnswer,
    BulkRequest,
    LabelAnswer,
    LabelRequest,
    ScoreAnswer,
    ScoreRequest,
)
from bentos.api.edge import BULK_PATH, EdgeService
from bentos.api.explain import explain
from bentos.base.logs import configure_logs
from bentos.base.problem import Problem
from bentos.scoring.engine import Engine
from fraud.contract.transaction import Transaction
from stores.settings import settings


def _service_class() -> type[EdgeService]:
    if settings().serve.tracing:
        from bentos.tracing import TracedService  # OpenTelemetry is loaded only when it is asked for

        return TracedService
    return EdgeService


@bentoml.service(
    name="FraudScorer",
    service_class=_service_class(),
    workers=settings().serve.workers,
    traffic={"timeout": 10.0},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": True, "namespace": "bentoml_service"},
)
class FraudScorer:
    """Scores card transactions and answers APPROVE, REVIEW or BLOCK."""

    bento_service: EdgeService

    @bentoml.on_startup
    async def begin(self) -> None:
        """Open what a worker needs; before this, nothing listens."""
        configure_logs(settings().log_level)
        engine = Engine(settings())
        await engine.start()
        self.bento_service.engine = engine
        await self.bento_service.open_metrics_port()

    @bentoml.on_shutdown
    async def end(self) -> None:
        """Finish what is under way and drain the log."""
        self.bento_service.close_metrics_port()
        engine = self.bento_service.engine
        if engine is not None:
            await engine.stop()
            self.bento_service.engine = None

    async def __is_ready__(self) -> bool:
        engine = self.bento_service.engine
        return engine is not None and engine.ready

    @property
    def _admitting(self) -> Engine:
        """The engine, for a call that the edge has let in."""
        require_admitted()
        engine = self.bento_service.engine
        if engine is None:
            raise Problem(503, "(service)", "is starting", retry_after=1)
        return engine

    @bentoml.api(route="/v1/score")
    async def score(self, transaction: ScoreRequest, /) -> ScoreAnswer:
        """Decide one transaction. The same id and body gives the same answer for 24 hours."""
        raw = transaction.model_dump_json(exclude_none=True).encode()
        return ScoreAnswer.model_validate_json(await self._admitting.score(raw, perf_counter()))

    @bentoml.api(
        route=BULK_PATH,
        batchable=True,
        max_batch_size=1024,
        max_latency_ms=10_000,
        input_spec=BulkRequest,
        output_spec=BulkAnswer,
    )
    async def score_batch(self, transactions: list[Transaction | Problem]) -> list[bytes]:
        """Decide up to 1,024 transactions; each gets its own answer or its own error."""
        engine = self.bento_service.engine
        assert engine is not None  # `BulkRequest` was let in
        return await engine.score_many(transactions)

    @bentoml.api(route="/v1/labels")
    async def labels(self, label: LabelRequest, /) -> LabelAnswer:
        """Report a chargeback or an analyst's verdict. Answered with 202 once it is on disk."""
        raw = label.model_dump_json(exclude_none=True).encode()
        return LabelAnswer(accepted=await self._admitting.take_labels(raw))

    @bentoml.api(route="/v1/explain")
    async def explain(self, transaction: ScoreRequest, /) -> dict[str, Any]:
        """Exact SHAP values of one transaction; decides and logs nothing."""
        raw = transaction.model_dump_json(exclude_none=True).encode()
        return await explain(self._admitting, raw)
