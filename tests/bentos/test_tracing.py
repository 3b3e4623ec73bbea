"""Traces: spans of requests and of the batches that decided them, only when asked for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bentos.api.edge import Edge, EdgeService
from bentos.scoring.engine import Engine
from bentos.service import _service_class
from bentos.tracing import TracedScorer, TracedService, traced, tracer_provider
from embedded.redis_server import RedisServer
from stores.settings import load_settings, settings
from tests.bentos.running import save_model, transaction_json

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_request_is_a_span_and_its_batch_links_to_it(tmp_path: Path, redis_server: RedisServer) -> None:
    save_model(tmp_path, "first", trees=3)
    chosen = load_settings().changed(home=tmp_path, redis_url=f"redis://127.0.0.1:{redis_server.port}/7")
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def nobody(*_: object) -> None:
        raise AssertionError("only hot routes are asked for")

    async def run() -> list[int]:
        engine = Engine(chosen)
        engine.scorer.log.close()
        scorer = TracedScorer(chosen, engine.metrics, provider)
        await engine.scorer.reader.close()
        engine.scorer = scorer
        engine.batcher._run = scorer.run
        await scorer.start()
        transport = httpx.ASGITransport(app=traced(Edge(nobody, lambda: engine), provider))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answers = [
                await client.post("/v1/score", json=transaction_json(transaction_id="seen", **changes),
                                  headers={"traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"})
                for changes in ({}, {"amount": "13.00"})
            ]  # fmt: skip
            await client.get("/metrics")
        await scorer.close()
        assert scorer.once.spans == {}
        return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [200, 409]
    spans = exporter.get_finished_spans()
    by_name = {span.name: span for span in spans}
    requests = [span for span in spans if span.name.startswith("POST")]
    assert [f"{span.context.trace_id:032x}" for span in requests if span.context] == [CALLER, CALLER]
    assert {"batch", "features", "model", "rules", "finish"} <= by_name.keys()
    assert not any("metrics" in span.name for span in spans)
    batch = by_name["batch"]
    assert [link.context for link in batch.links] == [requests[0].context]
    for stage in ("features", "model", "rules", "finish"):
        assert by_name[stage].parent == batch.context
    assert by_name["model"].attributes == {"tollgate.model_versions": ("first",)}
    everything = json.dumps([json.loads(span.to_json()) for span in spans])
    assert "seen" in everything
    for value in ("customer-1", "card-1", "198.51.100.7"):
        assert value not in everything


def test_the_setting_turns_traces_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _service_class() is EdgeService
    monkeypatch.setenv("TOLLGATE_SERVE_TRACING", "true")
    settings.cache_clear()
    try:
        assert _service_class() is TracedService
    finally:
        settings.cache_clear()
    provider = tracer_provider()  # with the exporter of the optional packages
    assert provider.resource.attributes["service.name"] == "tollgate-scorer"
    provider.shutdown()
