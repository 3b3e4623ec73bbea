"""Transaction ids belong to a client: nobody takes another's, blocks them, or learns of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from bentos.api.access import Access
from bentos.base.caller import LOCAL, Caller
from bentos.base.problem import Problem
from bentos.base.work import Work
from embedded.redis_server import RedisServer
from fraud.contract.transaction import parse_transaction
from tests.bentos.one_worker import copied, events, logged, worker
from tests.bentos.running import save_model, start_service, transaction, transaction_json

M2 = pytest.mark.finding(
    "M2", "medium", "Another client's id could be taken (409 for a day), asked after, and its answer read"
)


def tokens(folder: Path) -> Path:
    """Each client's token is its name; the shop's second gateway and its disputes share the shop's ids."""
    clients = [
        {"name": name, "sha256": [hashlib.sha256(name.encode()).hexdigest()], "scopes": scopes}
        | ({"ids": ids} if ids else {})
        | ({"label_sources": ["chargeback"]} if "label" in scopes else {})
        for name, scopes, ids in (
            ("checkout", ["score"], None),
            ("rival", ["score"], None),
            ("gateway-2", ["score"], "checkout"),
            ("disputes", ["label"], "checkout"),
            ("analysts", ["label"], "*"),
        )
    ]
    path = folder / "tokens.json"
    path.write_text(json.dumps({"clients": clients}))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    save_model(store, "one", trees=5)
    (store / "deployment.json").write_text('{"champion": "one"}')
    return copied(store, tmp_path)


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    url = f"redis://127.0.0.1:{redis_server.port}/9"
    redis.Redis.from_url(url).flushdb()
    return url


@M2
def test_a_rival_that_uses_an_id_first_changes_nothing_and_learns_nothing(home: Path, url: str) -> None:
    async def run() -> None:
        async with (
            worker(home, url, tokens_file=tokens(home)) as (_, first),
            worker(home, url, tokens_file=home / "tokens.json") as (_, second),
        ):
            rivals = await first(transaction_id="victim-1", amount="1.00", token="rival")
            for post in (first, second):  # from memory, and through Redis
                own = await post(transaction_id="victim-1", token="checkout")
                assert own.status_code == 200
                assert own.json()["transaction_id"] == "victim-1"
                assert own.json()["latency_ms"] != rivals.json()["latency_ms"]
            # The same body: its own answer, not the other's.
            same = await second(transaction_id="victim-1", token="rival")
            assert same.status_code == 409  # its own body was another one
            fresh = await second(transaction_id="victim-2", token="rival")
            theirs = await second(transaction_id="victim-2", token="checkout")
            assert {fresh.status_code, theirs.status_code} == {200}
            assert fresh.content != theirs.content
            # One client's ids are decided once, over its gateways.
            assert (await first(transaction_id="victim-1", token="gateway-2")).content == own.content
            assert (
                await first(transaction_id="victim-1", amount="9.99", token="gateway-2")
            ).status_code == 409

    asyncio.run(run())
    names = ["checkout:victim-1", "checkout:victim-2", "rival:victim-1", "rival:victim-2"]
    assert sorted(events(url)) == names
    assert sorted((row["transaction_id"], row["client"]) for row in logged(home)) == [
        (name, name.partition(":")[0]) for name in names
    ]


@M2
def test_an_id_that_looks_like_anothers_is_ones_own(home: Path, url: str) -> None:
    async def run() -> None:
        async with worker(home, url, tokens_file=tokens(home)) as (_, post):
            assert (await post(transaction_id="checkout:a", token="rival")).status_code == 200
            assert (await post(transaction_id="a", amount="2.00", token="checkout")).status_code == 200
            too_long = await post(transaction_id="x" * 65, token="checkout")
            assert (too_long.status_code, too_long.json()["error"]["field"]) == (422, "transaction_id")
            assert (await post(transaction_id="x" * 64, token="checkout")).status_code == 200

    asyncio.run(run())
    assert sorted(events(url)) == ["checkout:a", "checkout:" + "x" * 64, "rival:checkout:a"]
    longest = Caller("c" * 32, "i" * 32).inside("x" * 64)
    body = json.dumps(transaction_json(transaction_id=longest)).encode()
    assert parse_transaction(body).transaction_id == longest  # the event log takes it


def test_where_there_are_no_tokens_ids_stand_as_they_came() -> None:
    async def run() -> None:
        future = asyncio.get_running_loop().create_future()
        work = Work(transaction(transaction_id="a:b"), future, 0.0)
        assert (work.transaction.transaction_id, work.own_id, work.client) == ("a:b", "a:b", "loopback")

    asyncio.run(run())
    with pytest.raises(Problem, match="1 to 64"):
        LOCAL.inside("x" * 65)


@pytest.fixture
def service(tmp_path: Path, redis_server: RedisServer) -> Iterator[tuple[str, Path]]:
    save_model(tmp_path, "first")
    running = start_service(
        tmp_path, f"redis://127.0.0.1:{redis_server.port}/12", TOLLGATE_TOKENS_FILE=str(tokens(tmp_path))
    )
    running.redis.flushdb()
    yield running.url, tmp_path
    running.stop()


@M2
def test_bulk_requests_of_two_clients_and_labels_keep_to_their_own_ids(service: tuple[str, Path]) -> None:
    url, home = service

    async def send(client: httpx.AsyncClient, who: str, amount: str) -> list[dict[str, object]]:
        items = [transaction_json(transaction_id=f"b{n}", amount=amount) for n in range(20)]
        answer = await client.post("/v1/score/batch", json=items, headers={"authorization": f"Bearer {who}"})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, object]] = answer.json()
        return found

    async def run() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            both = await asyncio.gather(send(client, "checkout", "5.00"), send(client, "rival", "7.00"))
            for answers in both:
                assert [answer["transaction_id"] for answer in answers] == [f"b{n}" for n in range(20)]
            assert both[0] != both[1]
            label = {"transaction_id": "b3", "event_time": transaction_json()["event_time"], "is_fraud": True,
                     "source": "chargeback"}  # fmt: skip
            kept = await client.post("/v1/labels", json=label, headers={"authorization": "Bearer disputes"})
            assert kept.status_code == 202, kept.text
            label["transaction_id"] = "rival:b4"
            kept = await client.post("/v1/labels", json=label, headers={"authorization": "Bearer analysts"})
            assert kept.status_code == 202, kept.text

    asyncio.run(run())
    stored = b"".join([path.read_bytes() for path in (home / "labels").rglob("*") if path.is_file()])
    assert b'"checkout:b3"' in stored
    assert b'"rival:b4"' in stored


def test_who_sends_transactions_cannot_claim_every_id_space(tmp_path: Path) -> None:
    path = tokens(tmp_path)
    access = Access(path, 0)
    path.write_text(
        path.read_text().replace('"scopes": ["label"], "ids": "*"', '"scopes": ["score"], "ids": "*"')
    )
    access.refresh()
    assert access.error == "tokens.json: ValueError"
