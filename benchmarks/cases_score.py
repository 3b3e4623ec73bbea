"""The cases of the scoring API: each body over HTTP to a service of its own, held to what is right of it.

The service runs without the scope that replays have, so that its clock counts, and with a model that has
seen nothing of the payments.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from benchmarks.serving_data import build_model
from benchmarks.serving_services import start
from embedded.redis_server import start_redis
from stores.settings import settings

CARD_NUMBER: Final = "4" + "1" * 15


class Door(NamedTuple):
    """The service's address, and where it logs."""

    client: httpx.Client
    home: Path

    def score(self, **changes: Any) -> httpx.Response:
        """The answer to a payment of now, with `changes`; None leaves a field out."""
        body = {"transaction_id": uuid.uuid4().hex, "event_time": utc(), **_PAYMENT, **changes}
        return self.client.post(
            "/v1/score", json={name: value for name, value in body.items() if value is not None}
        )


_PAYMENT: Final = {
    "customer_id": "c-1", "card_id": "token-1", "merchant_id": "m-1", "amount": "12.30", "currency": "EUR",
    "channel": "ecom",
}  # fmt: skip


def utc(**ahead: float) -> str:
    """Now and `ahead` (as of `timedelta`), as RFC 3339."""
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat(timespec="milliseconds")


@cache
def door() -> Door:
    """The service, started once and ended with the process."""
    stack = ExitStack()
    atexit.register(stack.close)
    work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    home = work / "home"
    os.environ["TOLLGATE_HOME"] = str(home)  # with the keys that sign the model
    settings.cache_clear()
    build_model(home, trees=20, leaves=15)
    redis = start_redis(work / "redis")
    stack.callback(redis.stop)
    service = start(
        "tollgate", home, f"redis://127.0.0.1:{redis.port}/0", TOLLGATE_SERVE_REPLAY="false",
        TOLLGATE_RUN=str(work / "run"),
    )  # fmt: skip
    stack.callback(service.stop)
    client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=10))
    return Door(client, home)


def _numeric_ids() -> tuple[bool, str]:
    ids: dict[str, Callable[[int], dict[str, str]]] = {
        "epoch milliseconds": lambda n: {"transaction_id": str(1771502400123 + n)},
        "snowflake": lambda n: {"transaction_id": str((1771502400123 - 1288834974657 + n) << 22 | n)},
        "date-terminal-stan": lambda n: {"transaction_id": f"20260219-12345678-{n:06d}"},
        "merchant id": lambda n: {"merchant_id": f"4987500{n:08d}"},
        "IMEI": lambda _: {"device_id": "490154203237518"},
    }
    refused = sum(door().score(**make(n)).status_code != 200 for make in ids.values() for n in range(200))
    fields = ("transaction_id", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id")
    spelt = (CARD_NUMBER, "4111 1111 1111 1111", "4111-1111-1111-1111")
    let_in = sum(door().score(**{name: number}).status_code == 200 for name in fields for number in spelt)
    logged = any(
        CARD_NUMBER.encode() in path.read_bytes() for path in door().home.rglob("*") if path.is_file()
    )
    return not refused and not let_in and not logged, (
        f"{refused} of 1,000 ids refused, {let_in} card numbers let in, logged: {logged}"
    )


def _retry() -> tuple[bool, str]:
    name, at = uuid.uuid4().hex, datetime.now(UTC).replace(microsecond=0)
    berlin = (at + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S") + "+01:00"
    first = {"transaction_id": name, "event_time": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "amount": "12.30"}
    spelt: tuple[dict[str, Any], ...] = ({}, {"amount": "12.3"}, {"amount": 12.3}, {"event_time": berlin})
    answers = [door().score(**first | each) for each in spelt]
    same = len({answer.content for answer in answers}) == 1
    return same and answers[0].status_code == 200, f"{[answer.status_code for answer in answers]}"


def _basket() -> tuple[bool, str]:
    name = uuid.uuid4().hex
    body = {"transaction_id": name, "event_time": utc()}
    first = door().score(**body, amount=304.09999999999997)
    again = door().score(**body, amount="304.10")
    return first.status_code == 200 and first.content == again.content, f"{first.status_code}"


def _digits() -> tuple[bool, str]:
    at = (datetime.now(UTC) - timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%S")
    name = uuid.uuid4().hex
    first = door().score(transaction_id=name, event_time=f"{at}.9999999Z")
    again = door().score(transaction_id=name, event_time=f"{at}.999Z")
    return first.status_code == 200 and first.content == again.content, f"{again.status_code}"


def _optional() -> tuple[bool, str]:
    name, at = uuid.uuid4().hex, utc()
    first = door().score(transaction_id=name, event_time=at, device_id="", country="", merchant_category=5411)
    again = door().score(transaction_id=name, event_time=at, merchant_category="5411")
    required = door().score(customer_id="").status_code
    held = first.status_code == 200 and first.content == again.content and required == 422
    return held, f"{first.status_code}, {again.status_code}, empty customer {required}"


def _null_island() -> tuple[bool, str]:
    who = {"customer_id": "traveller", "card_id": "k-traveller", "channel": "pos", "merchant_id": "m-2"}
    door().score(**who, event_time=utc(minutes=-4), latitude=52.52, longitude=13.4)
    there = door().score(**who, event_time=utc(minutes=-2), latitude=0, longitude=0).json()
    back = door().score(**who, latitude=52.52, longitude=13.4).json()
    return "impossible_travel" not in there["rules"] + back["rules"], f"{there['rules']} {back['rules']}"


def _clock() -> tuple[bool, str]:
    early, late = door().score(event_time=utc(hours=2)), door().score(event_time="2001-05-31T00:00:00Z")
    time.sleep(2)  # what workers count is put together once a second
    metrics = door().client.get("/metrics").text
    said = early.json().get("degraded", []), late.json().get("degraded", [])
    by_client = 'event_lateness_seconds_bucket{client="loopback",le="-300.0"}' in metrics
    return "early_event" in said[0] and "late_event" in said[1] and by_client, f"{said}"


def _outcomes() -> tuple[bool, str]:
    """Each kind, told once, again, and of a payment that nobody knows."""
    kinds = ("refunded", "reversed", "declined", "incremental")
    told = []
    for kind in kinds:
        name = door().score().json()["transaction_id"]
        part = {"amount": "1.00", "currency": "EUR"} if kind in ("refunded", "incremental") else {}
        for transaction in (name, name, uuid.uuid4().hex):
            body = {
                "transaction_id": transaction,
                "kind": kind,
                "outcome_id": "o-1",
                "event_time": utc(),
                **part,
            }
            told.append(door().client.post("/v1/outcomes", json=body).status_code)
    return set(told) == {202}, f"POST /v1/outcomes of {', '.join(kinds)}: {sorted(set(told))}"


def _stranger() -> tuple[bool, str]:
    new = uuid.uuid4().hex
    answer = door().score(customer_id=f"c-{new}", card_id=f"k-{new}", merchant_id=f"m-{new}").json()
    words = answer["risk_factors"]
    plain = not any(word.startswith(("1 if", "0 if")) or "unknown" in word for word in words)
    return plain, f"{answer['decision']} {words}"


#: What is right of each body, by the case's name.
BODIES: Final[dict[str, Callable[[], tuple[bool, str]]]] = {
    "numeric_ids": _numeric_ids,
    "retry_spelt_otherwise": _retry,
    "sum_of_a_basket": _basket,
    "seven_digits_of_a_second": _digits,
    "optional_and_empty": _optional,
    "null_island": _null_island,
    "clock_of_a_terminal": _clock,
    "refund_reversal_decline": _outcomes,
    "stranger": _stranger,
}


def try_case(case: Mapping[str, Any], text: str) -> tuple[bool, str] | None:
    """Whether the case is held, and what was seen; None without a check."""
    check = BODIES.get(case["name"])
    return check() if check else None
