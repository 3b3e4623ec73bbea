"""A scrape is encoded off the event loop, once for all who ask meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bentos.api.access import open_access
from bentos.api.metrics_page import MetricsPage
from bentos.base.worker_metrics import WorkerMetrics
from bentos.service import open_edge, open_engine
from stores.settings import load_settings

h2 = pytest.mark.finding(
    "H2", "high", "Unknown paths become metric series for ever, and a scrape stalls decisions"
)


@h2
def test_the_loop_turns_while_a_scrape_is_encoded() -> None:
    turned = threading.Event()

    def encode() -> bytes:
        assert turned.wait(30)  # for ever, if it were on the loop
        return b"text"

    async def run() -> bytes:
        scrape = asyncio.create_task(MetricsPage(encode).text())
        for _ in range(100):
            await asyncio.sleep(0)
        turned.set()
        return await scrape

    assert asyncio.run(run()) == b"text"


@h2
def test_scrapes_that_come_while_one_is_encoded_share_it_and_the_next_is_new() -> None:
    texts = iter(range(10))
    go = threading.Event()

    def encode() -> bytes:
        assert go.wait(30)
        return b"%d" % next(texts)

    async def run() -> tuple[list[bytes], bytes]:
        page = MetricsPage(encode)
        scrapes = [asyncio.create_task(page.text()) for _ in range(50)]
        await asyncio.sleep(0)
        scrapes[0].cancel()  # one that leaves takes nobody's answer with it
        go.set()
        return await asyncio.gather(*scrapes[1:]), await page.text()

    assert asyncio.run(run()) == ([b"0"] * 49, b"1")


@h2
def test_a_scrape_of_very_many_series_is_read_and_encoded_off_the_loop(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    text = WorkerMetrics.text

    def watched(workers: WorkerMetrics) -> bytes:
        threads.append(threading.get_ident())
        return text(workers)

    monkeypatch.setattr(WorkerMetrics, "text", watched)

    async def run() -> tuple[httpx.Response, int]:
        chosen = load_settings()
        engine = open_engine(chosen)
        for number in range(50_000):
            engine.metrics.count("rule_hits_total", f"rule-{number}", "block")
        transport = httpx.ASGITransport(app=open_edge(None, lambda: engine, open_access(chosen), chosen))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            scrape, counted = asyncio.create_task(client.get("/metrics")), 0
            while not scrape.done():  # what the loop does meanwhile changes what is being read
                engine.metrics.count("rule_hits_total", f"new-{counted}", "block")
                counted += 1
                await asyncio.sleep(0)
            return scrape.result(), threading.get_ident()

    answer, loop = asyncio.run(run())
    assert threads == [threads[0]]
    assert threads[0] != loop
    (family,) = (
        found for found in text_string_to_metric_families(answer.text) if found.name == "tollgate_rule_hits"
    )
    assert len(family.samples) >= 50_000
