"""The service over HTTP, as plain `bentoml serve` runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bentos.api.api_models import LabelRequest, ScoreAnswer, ScoreRequest
from bentos.api.exchange import read_body
from bentos.base.problem import Problem
from bentos.log.labels import Label
from fraud.contract.answer import Answer
from fraud.contract.transaction import Transaction
from fraud.features.entities import ENTITIES
from tests.bentos.running import Service, transaction_json, wait_for


def score(service: Service, **changes: Any) -> httpx.Response:
    return httpx.post(service.url + "/v1/score", json=transaction_json(**changes))


def test_a_transaction_gets_the_whole_answer(service: Service) -> None:
    response = score(service, transaction_id="whole")
    assert response.status_code == 200
    answer = response.json()
    assert list(answer) == list(Answer.__struct_fields__)
    assert answer["transaction_id"] == "whole"
    assert answer["model_version"] == "first"
    assert answer["variant"] == "champion"
    assert answer["degraded"] == []
    assert 0 <= answer["fraud_score"] <= 1
    assert answer["feature_status"] == {
        view: "fresh" for entity in ENTITIES for view in (entity.velocity_view, entity.profile_view)
    }


def test_a_large_amount_is_blocked_with_reasons_in_words(service: Service) -> None:
    answer = score(service, transaction_id="large", amount="9000.00").json()
    assert answer["decision"] == "BLOCK"
    assert any(factor == "amount of 9,720.00" for factor in answer["risk_factors"])


def test_unknown_entities_are_missing_and_not_degraded(service: Service) -> None:
    answer = score(
        service, transaction_id="strangers", customer_id="new", card_id="new", merchant_id="new",
        terminal_id=None, device_id=None, ip=None,
    ).json()  # fmt: skip
    assert set(answer["feature_status"].values()) == {"missing"}
    assert answer["degraded"] == []


def test_old_profiles_are_stale_by_the_event_time(service: Service) -> None:
    answer = score(service, transaction_id="three-days-on", event_time="2026-03-04T12:00:00Z").json()
    assert answer["feature_status"]["customer_profile"] == "stale"
    assert answer["feature_status"]["customer_velocity"] == "fresh"
    assert "stale:customer_profile" in answer["degraded"]


def test_the_same_request_gets_the_same_answer_and_one_event(service: Service) -> None:
    first, second = (score(service, transaction_id="twice").content for _ in range(2))
    assert first == second
    events = [
        event
        for partition in range(2)
        for event in service.redis.xrange(f"tollgate:transactions:{partition}")
    ]
    mine = [fields for _, fields in events if json.loads(fields[b"v"])["transaction_id"] == "twice"]
    assert len(mine) == 1


def test_another_body_under_the_same_id_is_a_conflict(service: Service) -> None:
    score(service, transaction_id="conflict")
    response = score(service, transaction_id="conflict", amount="13.00")
    assert response.status_code == 409
    assert response.json()["error"]["field"] == "transaction_id"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": None}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": "1.005"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"currency": "XXX"}, "currency"),
        ({"event_time": "2026-02-03T04:05:06"}, "event_time"),
        ({"event_time": "2126-03-01T12:00:00Z"}, "event_time"),
        ({"card_id": "4" + "1" * 15}, "card_id"),
        ({"merchant_id": "shop 4111-1111-1111-1111"}, "merchant_id"),
        ({"channel": "pigeon"}, "channel"),
        ({"customer_id": ""}, "customer_id"),
        ({"longitude": None}, "longitude"),
        ({"note": "hello"}, "note"),
        ({"country": "de"}, "country"),
    ],
)
def test_bad_input_is_refused_naming_the_field(service: Service, changes: dict[str, Any], field: str) -> None:
    response = score(service, transaction_id="bad", **changes)
    assert response.status_code == 422
    assert response.json()["error"]["field"] == field
    for value in changes.values():
        if isinstance(value, str) and len(value) > 8:
            assert value not in response.text


@pytest.mark.parametrize("path", ["/v1/score", "/v1/score/batch", "/v1/labels", "/v1/explain"])
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"transaction_id": ', {400, 422}),  # 422 where an array is due: the type is wrong already
        (b"", {400}),
        (b"\xff\xfe{}", {400}),
        (b"[" * 5000, {400, 422}),
        (b"3", {422}),
        (b'{"a": "' + b"x" * 2_000_000 + b'"}', {413}),
    ],
)
def test_bodies_that_are_no_transaction_are_refused(
    service: Service, path: str, content: bytes, status: set[int]
) -> None:
    response = httpx.post(service.url + path, content=content, headers={"content-type": "application/json"})
    assert response.status_code in status
    assert set(response.json()["error"]) == {"field", "reason"}


@pytest.mark.parametrize("kind", ["application/vnd.bentoml+pickle", "multipart/form-data", "text/plain"])
def test_only_json_is_taken(service: Service, kind: str) -> None:
    for path in ("/v1/score", "/v1/score/batch", "/v1/labels"):
        response = httpx.post(service.url + path, content=b"{}", headers={"content-type": kind})
        assert response.status_code == 415


def test_a_body_without_end_is_cut_off_while_it_streams(service: Service) -> None:
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(
            b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may hang up while we send
            for _ in range(8):
                connection.sendall(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        assert b" 413 " in connection.recv(200)


def test_a_body_that_does_not_arrive_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentos.api.exchange.BODY_SECONDS", 0.05)
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> dict[str, Any]:
        for part in parts:
            return part
        await asyncio.sleep(60)
        return {}

    with pytest.raises(Problem) as caught:
        asyncio.run(read_body(receive, 100))
    assert caught.value.status == 408


def test_get_on_a_scoring_route_is_refused(service: Service) -> None:
    assert httpx.get(service.url + "/v1/score").status_code == 405


def test_bulk_answers_every_item_and_one_bad_item_fails_alone(service: Service) -> None:
    items = [transaction_json(transaction_id=f"bulk-{n}") for n in range(64)]
    items[7] = {**items[7], "amount": -1}
    items[9] = {**items[8]}
    response = httpx.post(service.url + "/v1/score/batch", json=items)
    assert response.status_code == 200
    answers = response.json()
    assert len(answers) == 64
    assert answers[7]["error"]["field"] == "amount"
    assert answers[9] == answers[8]
    assert [answer["transaction_id"] for n, answer in enumerate(answers) if n not in (7, 9)] == [
        f"bulk-{n}" for n in range(64) if n not in (7, 9)
    ]


def test_bulk_and_single_give_the_same_score(service: Service) -> None:
    single = score(service, transaction_id="alone").json()
    (bulk,) = httpx.post(
        service.url + "/v1/score/batch", json=[transaction_json(transaction_id="in-bulk")]
    ).json()
    assert bulk["fraud_score"] == single["fraud_score"]


def test_bulk_is_bounded(service: Service) -> None:
    assert httpx.post(service.url + "/v1/score/batch", json=[{}] * 1025).status_code == 422
    assert httpx.post(service.url + "/v1/score/batch", json=[]).status_code == 422


def test_an_explanation_adds_up(service: Service) -> None:
    response = httpx.post(service.url + "/v1/explain", json=transaction_json(transaction_id="explained"))
    answer = response.json()
    assert response.status_code == 200
    log_odds = answer["base_value"] + sum(item["shap"] for item in answer["contributions"])
    assert 1 / (1 + math.exp(-log_odds)) == pytest.approx(answer["fraud_score"], rel=1e-9)


def test_a_decision_is_explained_as_it_was_made_from_the_log(service: Service) -> None:
    answer = score(service, transaction_id="to-explain", amount="9000.00").json()
    assert answer["decision"] == "BLOCK" and answer["reason_codes"]
    url = service.url + "/v1/explain"
    found = httpx.get(url, params={"transaction_id": "to-explain"}, timeout=60).json()
    for name in ("transaction_id", "decision", "risk_factors", "reason_codes", "rules", "model_version"):
        assert found[name] == answer[name]
    assert found["score"] == answer["fraud_score"]
    assert found["feature_status"] == answer["feature_status"]
    assert {"code": "A1", "meaning": "The amount is unusual"} in found["reasons"]
    log_odds = found["base_value"] + sum(item["shap"] for item in found["contributions"])
    assert 1 / (1 + math.exp(-log_odds)) == pytest.approx(found["score"], rel=1e-9)
    # ...and from the hourly files, once the journal's segment has become one.
    files = service.home / "decisions"

    def filed() -> bool:
        found = [path for path in files.glob("date=*/hour=*/*.parquet") if not path.name.startswith(".")]
        ids = [pq.read_table(path, columns=["transaction_id"], partitioning=None).column(0) for path in found]
        return any("to-explain" in each.to_pylist() for each in ids)

    assert wait_for(filed, seconds=120)
    assert httpx.get(url, params={"transaction_id": "to-explain"}, timeout=60).json() == found
    assert httpx.get(url, params={"transaction_id": "never"}, timeout=60).status_code == 404
    assert httpx.get(url).status_code == 422
    assert httpx.get(url, params={"transaction_id": "a", "b": "c"}).status_code == 422


def test_a_label_reaches_the_lake_with_its_known_at(service: Service) -> None:
    score(service, transaction_id="labelled")
    body = {
        "transaction_id": "labelled",
        "event_time": "2026-03-01T12:00:00Z",
        "is_fraud": True,
        "source": "chargeback",
        "known_at": "2026-03-05T08:00:00+01:00",
    }
    response = httpx.post(service.url + "/v1/labels", json=body)
    assert (response.status_code, response.json()) == (202, {"accepted": 1})
    folder = service.home / "lake" / "labels" / "date=2026-03-05"
    assert wait_for(lambda: any(folder.glob("*.parquet")))
    (row,) = ds.dataset(str(folder)).to_table().to_pylist()
    assert row["created_timestamp"].isoformat() == "2026-03-05T07:00:00+00:00"


def test_a_label_before_its_event_is_refused(service: Service) -> None:
    body = {
        "transaction_id": "x",
        "event_time": "2026-03-01T12:00:00Z",
        "is_fraud": True,
        "source": "analyst",
        "known_at": "2026-02-01T00:00:00Z",
    }
    response = httpx.post(service.url + "/v1/labels", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "known_at"


def test_health_metrics_and_documents_are_served(service: Service) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert httpx.get(service.url + path).status_code == 200
    assert httpx.get(service.url + "/readyz").text == "ready\n"
    assert httpx.head(service.url + "/readyz").content == b""
    text = httpx.get(service.url + "/metrics").text
    assert 'tollgate_decisions_total{decision="APPROVE",variant="champion"}' in text
    assert 'tollgate_stage_seconds_bucket{le="+Inf",stage="features"}' in text
    paths = httpx.get(service.url + "/docs.json").json()["paths"]
    assert {"/v1/score", "/v1/score/batch", "/v1/labels", "/v1/explain"} <= set(paths)


def test_no_card_number_is_in_the_log(service: Service) -> None:
    number = "4" + "1" * 15
    score(service, transaction_id="pan", card_id=number)
    httpx.post(service.url + "/v1/score/batch", json=[transaction_json(card_id=number), number])
    httpx.post(service.url + "/v1/labels", json={"transaction_id": number})
    assert number not in service.log.read_text()


def test_a_typed_client_uses_the_same_path(service: Service) -> None:
    import bentoml

    with bentoml.SyncHTTPClient(service.url) as client:
        answer = client.score(transaction_json(transaction_id="client"))
    assert ScoreAnswer.model_validate(answer).transaction_id == "client"


def test_the_published_models_mirror_the_contract() -> None:
    assert set(ScoreRequest.model_fields) == set(Transaction.__struct_fields__)
    assert list(ScoreAnswer.model_fields) == list(Answer.__struct_fields__)
    assert set(LabelRequest.model_fields) == set(Label.__struct_fields__)
