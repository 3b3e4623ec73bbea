"""Small ways around a rule: numbers for text, fields twice, times ahead, odd requests and odd digits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from bentos.log.labels import Reporter, parse_labels
from fraud.contract.transaction import ContractError, parse_transaction
from tests.bentos.running import Service, transaction_json
from tests.security.raw_http import ask, request, scored

L4 = pytest.mark.finding("L4", "low", "a card number written as a number passed as an attribute")
L5 = pytest.mark.finding("L5", "low", "of a label's field that was given twice the last one counted")
L6 = pytest.mark.finding("L6", "low", "a label of an event ahead was known ahead of now")
L7 = pytest.mark.finding("L7", "low", "a fragment in the request line was cut off and the rest served")
L12 = pytest.mark.finding(
    "L12", "low", "a coding before chunked was dropped, and the body read as if it had none"
)
L8 = pytest.mark.finding("L8", "low", "a chunked body under HTTP/1.0 was read, which proxies read otherwise")
L9 = pytest.mark.finding("L9", "low", "amounts with underscores and digits of other scripts were taken")
L10 = pytest.mark.finding(
    "L10", "low", "a web page could read the metrics port by a name of its own (DNS rebinding)"
)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LABEL = {"transaction_id": "t", "event_time": "2026-03-01T11:00:00Z", "is_fraud": True, "source": "issuer"}


@L4
@pytest.mark.parametrize(
    "number", ["4111111111111111", "4.111111111111111e15", "4111111111111111.0", "-4111111111111111"]
)
def test_a_card_number_is_none_for_being_a_number(number: str) -> None:
    body = json.dumps(transaction_json())[:-1] + f', "attributes": {{"loyalty": {number}}}}}'
    with pytest.raises(ContractError, match="looks like a card number"):
        parse_transaction(body.encode())


@L4
@pytest.mark.parametrize("number", ["4000000000000000006", "4.000000000000000006e18", "6304000000000000000"])
def test_a_number_that_is_not_exact_may_be_one_a_little_off(number: str) -> None:
    body = json.dumps(transaction_json())[:-1] + f', "attributes": {{"loyalty": {number}}}}}'
    with pytest.raises(ContractError, match="exact"):
        parse_transaction(body.encode())


@L4
@pytest.mark.parametrize("number", ["0.25", "1e300", "123456789012", "1764430000123", "-7"])
def test_other_numbers_are_taken(number: str) -> None:
    body = json.dumps(transaction_json())[:-1] + f', "attributes": {{"loyalty": {number}}}}}'
    assert parse_transaction(body.encode()).attributes == {"loyalty": float(number)}


@L5
@pytest.mark.parametrize("as_list", [False, True])
def test_a_field_of_a_label_that_is_given_twice_is_refused(as_list: bool) -> None:
    raw = json.dumps(LABEL)[:-1] + ', "is_fraud": false}'
    with pytest.raises(ContractError, match="is given twice"):
        parse_labels((f"[{raw}]" if as_list else raw).encode(), NOW, Reporter("c"))


@L6
def test_no_label_is_known_ahead_of_now() -> None:
    ahead = (NOW + timedelta(minutes=4)).isoformat()
    (label,) = parse_labels(json.dumps(LABEL | {"event_time": ahead}).encode(), NOW, Reporter("c"))
    assert (label.known_at, label.event_time) == (NOW, NOW + timedelta(minutes=4))


@L7
@pytest.mark.parametrize("lane", ["guarded", "local"])
def test_a_fragment_is_no_part_of_a_request(request: pytest.FixtureRequest, lane: str) -> None:
    service: Service = request.getfixturevalue(lane)
    for target in ("/v1/score#a", "/v1/score?b#a", "/livez#", "#"):
        assert ask(service, line(target)).status == 400


def line(target: str) -> bytes:
    return request(target, scored("fragment"), token="score")


@L8
@pytest.mark.parametrize("lane", ["guarded", "local"])
def test_a_chunked_body_is_not_of_http_1_0(request: pytest.FixtureRequest, lane: str) -> None:
    service: Service = request.getfixturevalue(lane)
    body = scored("chunked")
    raw = (
        b"POST /v1/score HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer score\r\n"
        b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )
    answer = ask(service, raw)
    assert (answer.status, answer.headers["connection"]) == (400, "close")


@L12
@pytest.mark.parametrize("lane", ["guarded", "local"])
@pytest.mark.parametrize(
    "coding",
    [b"gzip, chunked", b"chunked, chunked", b"identity, chunked", b"chunked\r\ntransfer-encoding: chunked"],
)
def test_a_body_is_chunked_and_nothing_else(request: pytest.FixtureRequest, lane: str, coding: bytes) -> None:
    service: Service = request.getfixturevalue(lane)
    body = scored("coded")
    raw = (
        b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer score\r\n"
        b"content-type: application/json\r\ntransfer-encoding: %b\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (coding, len(body), body)
    )
    answer = ask(service, raw)
    assert (answer.status, answer.headers["connection"]) == (400, "close")


@L9
@pytest.mark.parametrize(
    "amount", ["1_0", "1_0.00", "_5", "1.5_", "\u0661\u0662", "\uff11\uff10.00", "1e_1", "", "."]
)
@pytest.mark.parametrize("escaped", [False, True])
def test_an_amount_is_written_in_plain_digits(amount: str, escaped: bool) -> None:
    raw = json.dumps(transaction_json(amount=amount), ensure_ascii=escaped)
    with pytest.raises(ContractError, match="amount"):
        parse_transaction(raw.encode())
    hidden = raw.replace('"amount"', '"am\\u006funt"')
    with pytest.raises(ContractError, match="amount"):
        parse_transaction(hidden.encode())


@L9
@pytest.mark.parametrize(
    "amount", ["10", "10.5", "0010.50", "+10.50", "1e1", "1.05E+1", ".5", "5.", 10, 10.5, " 3 "]
)
def test_amounts_that_others_read_alike_are_taken(amount: object) -> None:
    assert parse_transaction(json.dumps(transaction_json(amount=amount)).encode()).amount > 0


@L10
def test_the_metrics_port_answers_no_web_page(guarded: Service) -> None:
    url = f"http://127.0.0.1:{guarded.environment['TOLLGATE_SERVE_METRICS_PORT']}/metrics"
    assert httpx.get(url).status_code == 200
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 403
    assert httpx.get(url, headers={"origin": "http://evil.example"}).status_code == 403
    assert httpx.get(url, headers={"x-forwarded-for": "203.0.113.9"}).status_code == 401
