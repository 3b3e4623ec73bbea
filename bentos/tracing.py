"""OpenTelemetry traces of scoring, when TOLLGATE_SERVE_TRACING asks for them; nothing at all without.

A request is a server span (a caller's `traceparent` is its parent). Requests share micro-batches,
so a batch is a trace of its own: a span `batch` linked to the requests in it, over the spans
`features`, `model`, `rules` and `finish`. Spans carry ids of transactions and outcomes, no other
field of a transaction. They go to an OTLP collector over HTTP; the standard OTEL_* variables say
where, how many are sampled and how many may wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, get_current_span

from bentos.api.edge import EdgeService
from bentos.base.metrics import Metrics
from bentos.base.work import Work
from bentos.features.online_features import OnlineRows
from bentos.features.online_reader import Read
from bentos.models.model import Floats
from bentos.models.model_scores import ModelScores, Scored
from bentos.once.once import Claimed, Once
from bentos.scoring.scorer import Scorer
from fraud.decision.rules import Rule
from stores.keys import Seal
from stores.settings import Settings, SettingsError

_NAME: Final = "tollgate"
#: Milliseconds that a worker which ends gives to spans that are not delivered yet.
_LAST_WORDS: Final = 2000


@lru_cache(maxsize=1)
def tracer_provider() -> TracerProvider:
    """This process's provider; raise `SettingsError` when the exporter is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise SettingsError(
            "TOLLGATE_SERVE_TRACING: needs the optional packages of tracing: pip install 'tollgate[tracing]'"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "tollgate-scorer"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def traced(app: Any, provider: TracerProvider) -> Any:
    """An ASGI application whose requests are spans."""
    return OpenTelemetryMiddleware(
        app, tracer_provider=provider, excluded_urls="healthz,livez,readyz,metrics",
        exclude_spans=["receive", "send"],
    )  # fmt: skip


class TracedService(EdgeService):
    """The service with a span around every request."""

    def to_asgi(self, is_main: bool = True) -> Any:
        app = super().to_asgi(is_main=is_main)
        return traced(app, tracer_provider()) if is_main else app


class _TracedOnce(Once):
    """Knows the span of every request that is under way."""

    def __init__(self, chosen: Settings, metrics: Metrics, seal: Seal) -> None:
        super().__init__(chosen, metrics, seal)
        self.spans: dict[Work, SpanContext] = {}

    def begin(self, work: Work) -> None:
        super().begin(work)
        self.spans[work] = get_current_span().get_span_context()

    def finished(self, work: Work) -> None:
        super().finished(work)
        self.spans.pop(work, None)


class _TracedScores(ModelScores):
    def __init__(self, chosen: Settings, provider: TracerProvider) -> None:
        super().__init__(chosen)
        self._tracer = provider.get_tracer(_NAME)

    def of(self, batch: Sequence[Work], matrix: Floats, remote: tuple[str, Floats] | None = None) -> Scored:
        with self._tracer.start_as_current_span("model") as span:
            scored = super().of(batch, matrix, remote)
            if scored.degraded:
                span.set_attribute("tollgate.degraded", scored.degraded)
            versions = {scoring.version for scoring in scored.models if scoring is not None}
            span.set_attribute("tollgate.model_versions", sorted(versions))
            return scored


class TracedScorer(Scorer):
    """A scorer whose batches and their stages are spans."""

    once: _TracedOnce

    def __init__(self, chosen: Settings, metrics: Metrics, provider: TracerProvider | None = None) -> None:
        super().__init__(chosen, metrics)
        self._provider = provider or tracer_provider()
        self._tracer = self._provider.get_tracer(_NAME)
        self.once = _TracedOnce(chosen, metrics, self.keys.seal("answers"))
        self.scores = _TracedScores(chosen, self._provider)

    async def run(self, batch: list[Work]) -> None:
        spans = self.once.spans
        links = [
            Link(spans[work], {"tollgate.transaction_id": work.transaction.transaction_id})
            for work in batch
            if work in spans and spans[work].is_valid
        ]
        with self._tracer.start_as_current_span(
            "batch", links=links, attributes={"tollgate.batch_size": len(batch)}
        ):
            await super().run(batch)

    async def _claim_and_read(self, batch: list[Work]) -> tuple[Claimed, Read]:
        with self._tracer.start_as_current_span("features") as span:
            claimed, read = await super()._claim_and_read(batch)
            span.set_attribute("tollgate.to_decide", len(claimed.to_decide))
            if read.shortfall:
                span.set_attribute("tollgate.degraded", read.shortfall)
            return claimed, read

    def _hits(
        self, batch: Sequence[Work], matrix: Floats, scores: Sequence[float | None]
    ) -> list[list[Rule]]:
        with self._tracer.start_as_current_span("rules") as span:
            every = super()._hits(batch, matrix, scores)
            hits = Counter(rule.name for hits in every for rule in hits)
            span.set_attribute("tollgate.rule_hits", [f"{name}={count}" for name, count in hits.items()])
            return every

    def _finish(
        self,
        batch: Sequence[Work],
        online: OnlineRows,
        matrix: Floats,
        scored: Scored,
        every: Sequence[list[Rule]],
        shortfalls: list[str],
    ) -> None:
        with self._tracer.start_as_current_span("finish"):
            super()._finish(batch, online, matrix, scored, every, shortfalls)

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(self._provider.force_flush, _LAST_WORDS)
