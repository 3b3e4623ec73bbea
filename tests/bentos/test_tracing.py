"""Traces: spans of requests and of the batches that decided them, only when asked for."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from bentos.base.stages import StageHistograms
from bentos.tracing import tracer_provider
from tests.bentos.one_worker import worker_client
from tests.bentos.running import save_model, transaction_json

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_request_is_a_span_and_its_batch_links_to_it(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, "first", trees=3)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    monkeypatch.setattr("bentos.tracing.tracer_provider", lambda: provider)

    async def run() -> list[int]:
        async with worker_client(tmp_path, url, serve_tracing=True) as (_, client):
            answers = [
                await client.post("/v1/score", json=transaction_json(transaction_id="seen", **changes),
                                  headers={"traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"},
                                  params={"secret": "4111111111111111"})
                for changes in ({}, {"amount": "13.00"})
            ]  # fmt: skip
            await client.get("/metrics")
            await client.get("/unknown/path")
        return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [200, 409]
    spans = exporter.get_finished_spans()
    by_name = {span.name: span for span in spans}
    requests = [span for span in spans if span.name.startswith("POST")]
    assert [f"{span.context.trace_id:032x}" for span in requests if span.context] == [CALLER, CALLER]
    assert {"batch", "features", "model", "rules", "finish"} <= by_name.keys()
    assert not any("metrics" in span.name or "unknown" in span.name for span in spans)
    batch = by_name["batch"]
    assert [link.context for link in batch.links] == [requests[0].context]
    stages = [span for span in spans if span.parent == batch.context]
    assert [span.name for span in stages] == ["features", "vector", "model", "rules", "finish"]
    for earlier, later in pairwise(stages):  # one ends where the next begins, within the batch
        assert earlier.end_time == later.start_time
    assert batch.start_time <= stages[0].start_time <= stages[-1].end_time <= batch.end_time
    assert by_name["model"].attributes == {"tollgate.model_versions": ("first",)}
    everything = json.dumps([json.loads(span.to_json()) for span in spans])
    assert "seen" in everything
    for value in ("customer-1", "card-1", "198.51.100.7", "4111111111111111"):
        assert value not in everything


def test_a_batch_that_fails_is_a_span_that_says_so_without_its_input(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("bentos.tracing.tracer_provider", lambda: provider)

    def fails(*_: object) -> None:
        raise ValueError("customer-1")

    async def run() -> int:
        async with worker_client(tmp_path, url, serve_tracing=True) as (engine, client):
            monkeypatch.setattr(engine.scorer.scores, "of", fails)
            return (await client.post("/v1/score", json=transaction_json())).status_code

    assert asyncio.run(run()) == 503
    (batch,) = (span for span in exporter.get_finished_spans() if span.name == "batch")
    assert (batch.status.status_code, batch.status.description) == (StatusCode.ERROR, "ValueError")
    assert "customer-1" not in batch.to_json()


def test_without_the_setting_nothing_of_opentelemetry_is_asked(tmp_path: Path, url: str) -> None:
    async def run() -> object:
        async with worker_client(tmp_path, url) as (engine, _):
            return engine.scorer.stages

    assert isinstance(asyncio.run(run()), StageHistograms)


def test_the_exporter_of_the_optional_packages_is_used() -> None:
    provider = tracer_provider()
    assert provider.resource.attributes["service.name"] == "tollgate-scorer"
    provider.shutdown()
