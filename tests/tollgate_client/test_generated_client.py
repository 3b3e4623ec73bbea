"""The published document is good enough to make another client of: one is made, and scores."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from bentos.api.access import Access
from bentos.api.edge import Edge
from bentos.api.openapi import OPERATIONS, document
from tests.bentos.running import Service, transaction_json


def test_the_document_is_what_the_service_publishes_and_has_every_operation(service: Service) -> None:
    published = httpx.get(service.url + "/docs.json")
    assert published.headers["content-type"] == "application/json"
    assert published.json() == json.loads(document())
    edge = Edge(nothing, lambda: None, Access(None, 0), document=document)
    posts = {path for path, route in edge.routes.items() if "POST" in route.methods}
    assert set(OPERATIONS) == posts


async def nothing(*_: Any) -> None:
    raise AssertionError("only the table of routes is read")


def test_what_the_service_answers_is_what_the_document_says(service: Service) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(json.loads(document()))
    for name, body, status in (
        ("/v1/score", transaction_json(transaction_id="doc-1"), 200),
        ("/v1/score", transaction_json(transaction_id="doc-1", amount="99.00"), 409),
        ("/v1/score", transaction_json(transaction_id="doc-2", amount="-1"), 422),
        ("/v1/score/batch", [transaction_json(transaction_id="doc-3"), {"transaction_id": "doc-4"}], 200),
        ("/v1/explain", transaction_json(transaction_id="doc-5"), 200),
        ("/v1/labels", {"transaction_id": "doc-1", "event_time": "2026-03-01T12:00:00Z", "is_fraud": True,
                        "source": "analyst"}, 202),
        ("/v1/labels", {"transaction_id": "doc-1"}, 422),
    ):  # fmt: skip
        answer = httpx.post(service.url + name, json=body)
        assert answer.status_code == status, answer.text
        schema[name]["POST"].validate_response(answer)


def test_a_client_made_of_the_document_scores(service: Service, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("openapi_python_client")
    (tmp_path / "openapi.json").write_bytes(httpx.get(service.url + "/docs.json").content)
    (tmp_path / "config.yaml").write_text("package_name_override: made\npost_hooks: []\n")
    made = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--meta", "none",
         "--config", "config.yaml", "--output-path", "made", "--fail-on-warning"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    client = importlib.import_module("made").Client(base_url=service.url)
    models = importlib.import_module("made.models")
    sent = models.ScoreRequest.from_dict(transaction_json(transaction_id="made-1"))
    answer = importlib.import_module("made.api.payments.score").sync_detailed(client=client, body=sent)
    assert answer.status_code == 200 and isinstance(answer.parsed, models.ScoreAnswer)
    assert answer.parsed.transaction_id == "made-1" and answer.parsed.model_version == "first"
    wrong = models.ScoreRequest.from_dict(transaction_json(transaction_id="made-2", currency="XXX"))
    refused = importlib.import_module("made.api.payments.score").sync(client=client, body=wrong)
    assert isinstance(refused, models.ErrorAnswer) and refused.error.field == "currency"
    many = importlib.import_module("made.api.payments.score_batch").sync(client=client, body=[sent, wrong])
    assert [type(each).__name__ for each in many] == ["ScoreAnswer", "ErrorAnswer"]
