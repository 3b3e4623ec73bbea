"""The client for callers: against the real service, and against servers that fail in every usual way."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from datasets.tokens import read_key
from tests.bentos.running import NOW, Service, transaction_json
from tollgate_client import (
    Client,
    Conflict,
    Decision,
    Label,
    NotAllowed,
    Outcome,
    Payment,
    Refused,
    Retries,
    TollgateError,
    Unavailable,
    token,
)

WHEN = datetime.fromisoformat(NOW)
ANSWER = {"transaction_id": "t", "decision": "APPROVE", "degraded": [], "something_newer": 1}


def payment(**changes: Any) -> Payment:
    """A payment of now, as a shop has one."""
    usual: dict[str, Any] = transaction_json(transaction_id=uuid.uuid4().hex) | {"event_time": WHEN}
    return Payment(**(usual | changes))


@pytest.fixture(scope="module")
def fraud(service: Service) -> Iterator[Client]:
    with Client(service.url, deadline=10, attempt=10) as client:
        yield client


def test_a_payment_gets_a_typed_decision(fraud: Client) -> None:
    sent = payment()
    decision = fraud.score(sent)
    assert decision.transaction_id == sent.transaction_id
    assert decision.decision in ("APPROVE", "REVIEW", "BLOCK")
    assert decision.model_version == "first" and isinstance(decision.fraud_score, float)
    assert set(decision.feature_status.values()) <= {"fresh", "stale", "missing", "timeout"}


@pytest.mark.parametrize("spelt", ["12.5", Decimal("12.50"), Decimal("12.500")])
def test_the_same_payment_spelt_otherwise_gets_the_same_decision(fraud: Client, spelt: Any) -> None:
    sent = payment(amount="12.50")
    there = WHEN.astimezone(timezone(timedelta(hours=5)))
    again = payment(transaction_id=sent.transaction_id, amount=spelt, event_time=there)
    assert fraud.score(sent) == fraud.score(again)


def test_another_payment_under_the_same_id_is_a_conflict(fraud: Client) -> None:
    sent = payment()
    fraud.score(sent)
    with pytest.raises(Conflict):
        fraud.score(payment(transaction_id=sent.transaction_id, amount="99.00"))


def test_a_wrong_field_is_named_and_its_value_is_not_repeated(fraud: Client) -> None:
    with pytest.raises(Refused) as refused:
        fraud.score(payment(card_id="4" + "1" * 15))
    assert (refused.value.status, refused.value.field) == (422, "card_id")
    assert "1111" not in str(refused.value)


def test_bulk_gives_each_payment_its_own_answer(fraud: Client) -> None:
    sent = [payment(), payment(currency="XXX"), payment()]
    first, second, third = fraud.score_many(sent)
    assert isinstance(first, Decision) and isinstance(third, Decision)
    assert isinstance(second, Refused) and second.field == "currency"
    assert [first.transaction_id, third.transaction_id] == [sent[0].transaction_id, sent[2].transaction_id]
    for number in (0, 1025):
        with pytest.raises(ValueError, match="1 to 1,024"):
            fraud.score_many([sent[0]] * number)


def test_labels_are_reported_one_or_many(fraud: Client) -> None:
    sent = payment()
    fraud.score(sent)
    label = Label(sent.transaction_id, sent.event_time, True, "chargeback")
    assert fraud.report(label) == 1
    assert fraud.report([label, Label(sent.transaction_id, WHEN, False, "analyst")]) == 2


def test_outcomes_are_told_one_or_many_and_again(fraud: Client) -> None:
    sent = payment()
    fraud.score(sent)
    refund = Outcome(sent.transaction_id, "refunded", "r-1", Decimal("2.50"), "EUR", event_time=WHEN)
    assert fraud.tell(refund) == fraud.tell(refund) == 1
    assert fraud.tell([Outcome(sent.transaction_id, "reversed"), Outcome("nobody-knows", "declined")]) == 2
    with pytest.raises(TypeError, match="never a float"):
        Outcome("t", "refunded", amount=2.5)  # type: ignore[arg-type]


def test_what_cannot_be_a_payment_fails_before_it_is_sent() -> None:
    with pytest.raises(TypeError, match="never a float"):
        payment(amount=12.3)
    with pytest.raises(ValueError, match="event_time should carry its zone"):
        payment(event_time=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="known_at"):
        Label("t", WHEN, True, "analyst", known_at=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="https"):
        Client("fraud.example")
    with pytest.raises(ValueError, match="above 0"):
        Client("https://fraud.example", deadline=0)
    with pytest.raises(ValueError, match="most"):
        Retries(most=11)


def test_a_token_of_a_card_is_the_importers(home: Any) -> None:
    import pyarrow as pa

    from datasets.tokens import token_column

    made = token_column(pa.array(["4111 1111 1111 1111"]), read_key()).to_pylist()
    assert made == [token("4" + "1" * 15, read_key())]


# -- servers that fail --------------------------------------------------------------------


class Scripted(ThreadingHTTPServer):
    """Answers a request after the other as `script` says: (status, headers, body), seconds to wait, or None,
    which breaks the connection. The last entry is repeated."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.bodies: list[bytes] = []
        self.tokens: list[str | None] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.server.tokens.append(self.headers["authorization"])
        script = self.server.script
        act = script.pop(0) if len(script) > 1 else script[0]
        if act is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if isinstance(act, float):
            time.sleep(act)
            act = (200, {}, ANSWER)
        status, headers, body = act
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def scripted(*script: Any) -> Iterator[tuple[Scripted, str]]:
    server = Scripted(*script)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


GOOD: Any = (200, {}, ANSWER)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_another_attempt_may_better_is_tried_again_with_the_same_bytes(status: int) -> None:
    with (
        scripted((status, {"retry-after": "0"}, b"{}"), GOOD) as (server, url),
        Client(url, "secret") as client,
    ):
        assert client.score(payment()).decision == "APPROVE"
    assert len(server.bodies) == 2 and len(set(server.bodies)) == 1
    assert server.tokens == ["Bearer secret"] * 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422])
def test_a_refusal_is_not_tried_again(status: int) -> None:
    body = {"error": {"field": "amount", "reason": "should be exact"}}
    with (
        scripted((status, {}, body)) as (server, url),
        Client(url) as client,
        pytest.raises(Refused, match="amount: should be exact") as refused,
    ):
        client.score(payment())
    assert refused.value.status == status and len(server.bodies) == 1
    assert isinstance(refused.value, NotAllowed) == (status in (401, 403))
    assert isinstance(refused.value, Conflict) == (status == 409)


def test_a_broken_connection_is_tried_again() -> None:
    with scripted(None, None, GOOD) as (server, url), Client(url) as client:
        assert client.score(payment()).decision == "APPROVE"
    assert len(server.bodies) == 3


def test_retries_end() -> None:
    with (
        scripted((503, {}, b"{}")) as (server, url),
        Client(url, deadline=10, retries=Retries(3, 0.0)) as client,
        pytest.raises(Unavailable, match="4 attempts: status 503") as away,
    ):
        client.score(payment())
    assert away.value.attempts == len(server.bodies) == 4


def test_a_slow_answer_does_not_hold_a_payment_beyond_the_deadline() -> None:
    with scripted(30.0) as (server, url):
        server.daemon_threads, server.block_on_close = True, False
        with (
            Client(url, deadline=0.4, attempt=0.15) as client,
            pytest.raises(Unavailable, match="ReadTimeout"),
        ):
            client.score(payment())
        assert 2 <= len(server.bodies) <= 3


def test_a_wait_that_the_deadline_does_not_allow_is_not_waited() -> None:
    with (
        scripted((429, {"retry-after": "60"}, b"{}"), GOOD) as (server, url),
        Client(url) as client,
        pytest.raises(Unavailable, match="status 429"),
    ):
        client.score(payment())
    assert len(server.bodies) == 1


def test_nobody_there_is_unavailable() -> None:
    client = Client("http://127.0.0.1:9", retries=Retries(1, 0.0))
    with client, pytest.raises(Unavailable, match="ConnectError"):
        client.score(payment())


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ((422, {}, {"error": {"field": "amount", "reason": "wrong"}}), "refused:amount"),
        ((503, {}, b"{}"), "no_answer"),
        ((200, {}, b"<html>"), "no_answer"),
        ((200, {}, [1]), "no_answer"),
    ],
)
def test_the_payment_path_always_has_an_answer(answer: Any, cause: str) -> None:
    with scripted(answer) as (_, url), Client(url, retries=Retries(0)) as client:
        decision = client.score_or(payment(), "APPROVE")
    assert (decision.decision, decision.degraded, decision.variant) == ("APPROVE", (cause,), "fallback")


def test_a_token_that_is_not_allowed_is_no_fallback() -> None:
    with scripted((401, {}, b"{}")) as (_, url), Client(url) as client, pytest.raises(NotAllowed):
        client.score_or(payment())


def test_a_token_follows_no_redirect() -> None:
    with scripted(GOOD) as (other, there), scripted((307, {"location": there}, b"")) as (_, url):
        with Client(url, "secret") as client, pytest.raises(TollgateError):
            client.score(payment())
        assert other.tokens == []


def test_what_a_newer_service_adds_is_ignored_and_what_is_no_answer_is_said() -> None:
    with scripted(GOOD) as (_, url), Client(url) as client:
        assert client.score(payment()) == Decision("t", "APPROVE")
    with (
        scripted((200, {}, [ANSWER])) as (_, url),
        Client(url) as client,
        pytest.raises(TollgateError, match="is this the scoring service"),
    ):
        client.score_many([payment(), payment()])


def test_the_client_loads_nothing_of_the_platform() -> None:
    code = (
        "import sys, tollgate_client; rooms = {name.split('.')[0] for name in sys.modules};"
        "print(sorted(rooms & {'fraud', 'stores', 'bentos', 'datasets', 'numpy', 'pyarrow', 'bentoml', 'redis'}))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
