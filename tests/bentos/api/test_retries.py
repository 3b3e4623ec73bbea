"""Over HTTP: a retry spelt otherwise gets the first answer's bytes, and ids that are numbers are taken."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest

from benchmarks.cards import FAMILIES
from tests.bentos.running import Service, transaction_json


def send(service: Service, content: bytes, path: str = "/v1/score") -> httpx.Response:
    return httpx.post(
        service.url + path, content=content, headers={"content-type": "application/json"}, timeout=10
    )


def spelt(**changes: Any) -> bytes:
    return json.dumps(transaction_json() | changes).encode()


SPELLINGS: list[dict[str, Any]] = [
    {"amount": "12.5"},
    {"amount": 12.5},
    {"amount": 12.499999999999998},
    {"event_time": "2026-03-01T13:00:00+01:00"},
    {"event_time": "2026-03-01T12:00:00.0009999999Z"},
    {"merchant_category": 5411},
    {"ip": "::ffff:198.51.100.7"},
    {"customer_id": " customer-1 "},
    {"latitude": 52.520000},
]


@pytest.mark.parametrize("path", ["/v1/score", "/v1/score/batch"])
def test_a_retry_spelt_otherwise_gets_the_first_answers_bytes(service: Service, path: str) -> None:
    name = "retry" + path.replace("/", "-")
    first = send(service, spelt(transaction_id=name, amount="12.50"))
    assert first.status_code == 200
    for spelling in SPELLINGS:
        body = spelt(**{"transaction_id": name} | spelling)
        again = send(service, b"[" + body + b"]" if path.endswith("batch") else body, path)
        assert again.status_code == 200, (spelling, again.text)
        assert again.content.strip(b"[]") == first.content.strip(b"[]"), spelling
    assert send(service, spelt(transaction_id=name, amount="12.51")).status_code == 409


def test_optional_fields_may_be_empty(service: Service) -> None:
    empty = dict.fromkeys(("device_id", "terminal_id", "ip", "merchant_category", "country"), "")
    response = send(service, spelt(transaction_id="empty", **empty))
    assert response.status_code == 200
    absent = json.loads(spelt(transaction_id="empty"))
    again = send(
        service, json.dumps({key: value for key, value in absent.items() if key not in empty}).encode()
    )
    assert again.content == response.content


def test_what_two_readers_would_read_differently_is_refused(service: Service) -> None:
    twice = spelt(transaction_id="twice-given")[:-1] + b', "card_id": "another"}'
    hidden = spelt(transaction_id="hidden", customer_id="c\x00-1")
    for body, field in ((twice, "card_id"), (hidden, "customer_id")):
        response = send(service, body)
        assert response.status_code == 422
        assert response.json()["error"]["field"] == field


def test_ids_that_are_numbers_are_taken(service: Service) -> None:
    rng = random.Random(11)
    families = [FAMILIES[name] for name in FAMILIES if "UUID" not in name]
    bodies = [
        transaction_json(
            transaction_id=families[place % len(families)](rng) + f"-{place}",
            merchant_id=FAMILIES["merchant id, 15 digits"](rng),
            device_id=FAMILIES["IMEI"](rng),
        )
        for place in range(1000)
    ]
    answers = send(service, json.dumps(bodies).encode(), "/v1/score/batch").json()
    assert [answer for answer in answers if "error" in answer] == []
