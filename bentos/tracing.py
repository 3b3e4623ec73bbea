"""OpenTelemetry traces of scoring, when TOLLGATE_SERVE_TRACING asks for them; nothing at all without.

A request is a server span (a caller's `traceparent` is its parent). Requests share micro-batches,
so a batch is a trace of its own: a span `batch` linked to the requests in it, over a span of each
stage. Spans carry ids of transactions and outcomes, no other field of a transaction. They go to an
OTLP collector over HTTP; the standard OTEL_* variables say where, how many are sampled and how
many may wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import time_ns
from typing import Any, Final

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)

from bentos.api.exchange import App
from bentos.base.stages import StageHistograms, Watch
from bentos.base.work import Work
from bentos.models.model_scores import Scored
from fraud.decision.rules import Rule
from stores.settings import SettingsError

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


def traced(app: App, provider: TracerProvider) -> App:
    """An ASGI application whose requests are spans: method, path, status, and nothing of a query."""
    spans: Any = OpenTelemetryMiddleware(
        app, tracer_provider=provider, excluded_urls="healthz,livez,readyz,metrics",
        exclude_spans=["receive", "send"],
    )  # fmt: skip

    async def without_query(scope: Any, receive: Any, send: Any) -> None:
        await spans({**scope, "query_string": b""}, receive, send)

    return without_query


class StageSpans:
    """Batches and their stages as spans, beside the histograms."""

    def __init__(self, histograms: StageHistograms, provider: TracerProvider) -> None:
        self._histograms = histograms
        self._provider = provider
        self._tracer = provider.get_tracer(_NAME)

    def request(self) -> object:
        return get_current_span().get_span_context()

    def parsed(self, seconds: float) -> None:
        self._histograms.parsed(seconds)

    def batch(self, batch: Sequence[Work]) -> Watch:
        links = [
            Link(work.trace, {"tollgate.transaction_id": work.transaction.transaction_id})
            for work in batch
            if isinstance(work.trace, SpanContext) and work.trace.is_valid
        ]
        span = self._tracer.start_span("batch", links=links, attributes={"tollgate.batch_size": len(batch)})
        return _SpanWatch(self._histograms.batch(batch), self._tracer, span)

    async def close(self) -> None:
        await asyncio.to_thread(self._provider.force_flush, _LAST_WORDS)


class _SpanWatch:
    """The stopwatch of one batch, whose stages become spans."""

    def __init__(self, histograms: Watch, tracer: Tracer, span: Span) -> None:
        self._histograms = histograms
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span)
        self._last = time_ns()

    def passed(self, stage: str, *facts: object) -> None:
        self._histograms.passed(stage)
        describe, now = _FACTS.get(stage), time_ns()
        self._tracer.start_span(
            stage, context=self._context, start_time=self._last,
            attributes=describe(*facts) if describe is not None else None,
        ).end(now)  # fmt: skip
        self._last = now

    def answered(self, batch: Sequence[Work]) -> None:
        self._histograms.answered(batch)

    def failed(self, error: Exception) -> None:
        self._histograms.failed(error)
        # The error's text may hold the input, its type does not.
        self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))

    def end(self) -> None:
        self._histograms.end()
        self._span.end()


def _features(to_decide: Sequence[Work], shortfall: str | None) -> dict[str, Any]:
    return {"tollgate.to_decide": len(to_decide)} | ({"tollgate.degraded": shortfall} if shortfall else {})


def _model(scored: Scored) -> dict[str, Any]:
    versions = sorted({scoring.version for scoring in scored.models if scoring is not None})
    return {"tollgate.model_versions": versions} | (
        {"tollgate.degraded": scored.degraded} if scored.degraded else {}
    )


def _rules(every: Sequence[list[Rule]]) -> dict[str, Any]:
    hits = Counter(rule.name for hits in every for rule in hits)
    return {"tollgate.rule_hits": [f"{name}={count}" for name, count in hits.items()]}


#: What a stage's facts look like on its span.
_FACTS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "features": _features, "model": _model, "rules": _rules,
}  # fmt: skip
