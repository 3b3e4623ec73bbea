"""The scoring flow against the service itself: what HTTP would have answered, published once."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
import pytest

from stores.settings import settings
from streaming.log.batch import PartitionReader
from streaming.log.publish import open_writer
from streaming.log.source import reader_opener
from streaming.scoring_flow import ScoringPartition
from tests.bentos.running import Service, transaction_json


def test_authorizations_of_the_event_log_get_the_answers_of_the_service(
    service: Service, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_SCORE_URL", service.url)
    monkeypatch.setenv("TOLLGATE_EVENT_LOG", "jsonl")
    settings.cache_clear()
    configured = settings()
    bodies = [
        transaction_json(transaction_id=f"flow-{index}", amount=f"{index % 40 * 25}.10", ip=None)
        for index in range(300)
    ]
    with open_writer(configured, configured.event_log.authorizations_topic) as writer:
        for body in [*bodies, bodies[7]]:  # one of them twice
            writer.publish_raw(0, json.dumps(body).encode())
    partition = ScoringPartition(configured, 0, None, threading.Event(), drain=True)
    with pytest.raises(StopIteration):
        while True:
            partition.next_batch()
    partition.close()
    predictions = configured.changed(topic=configured.event_log.predictions_topic)
    published = [json.loads(line) for line in everything(reader_opener(predictions)(0, None))]
    assert [answer["transaction_id"] for answer in published] == [body["transaction_id"] for body in bodies]
    asked = httpx.post(f"{service.url}/v1/score/batch", json=bodies, timeout=30).json()
    for have, want in zip(published, asked, strict=True):
        assert have["decision"] in ("APPROVE", "REVIEW", "BLOCK")
        for name in ("transaction_id", "fraud_score", "decision", "model_version", "risk_factors", "rules"):
            assert have[name] == want[name], name


def everything(reader: PartitionReader) -> list[bytes]:
    end, found = reader.end(), []
    while not reader.reached(end):
        found.extend(reader.read().payloads)
    reader.close()
    return found
