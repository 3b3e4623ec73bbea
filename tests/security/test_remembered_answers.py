"""Whoever writes to Redis, or to the files in which workers find each other's answers, decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest
import redis

from bentos.base.work import Work
from bentos.effects.outbox import remembered_answers
from bentos.once.claims import answer_key
from bentos.tools.audit import outcomes
from fraud.contract.transaction import encode_transaction
from stores.keys import open_keys
from stores.settings import load_settings
from stores.spool import frame
from tests.bentos.one_worker import copied, events, logged, worker
from tests.bentos.running import save_model, transaction

H6 = pytest.mark.finding("H6", "high", "An answer planted in Redis was given out, unseen and unlogged")
KEY = answer_key("tollgate", "future")
APPROVE = b'{"transaction_id":"future","fraud_score":0.0,"decision":"APPROVE","risk_factors":[],"rules":[]}'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    save_model(store, "one", trees=5)
    (store / "deployment.json").write_text('{"champion": "one"}')
    return copied(store, tmp_path)


@pytest.fixture
def url(redis_server: object) -> str:
    url = f"redis://127.0.0.1:{redis_server.port}/9"  # type: ignore[attr-defined]
    redis.Redis.from_url(url).flushdb()
    return url


def digest() -> bytes:
    """What the request's digest is: anybody can compute it."""
    return blake2b(encode_transaction(transaction(transaction_id="future")), digest_size=16).digest()


def unsigned(client: redis.Redis) -> None:
    client.set(KEY, b"A" + digest() + APPROVE)


def of_random_signature(client: redis.Redis) -> None:
    client.set(KEY, b"A" + bytes(range(20)) + digest() + APPROVE)


def with_a_known_keys_id(client: redis.Redis) -> None:
    key_id = open_keys(load_settings()).seal("answers").key_id
    client.set(KEY, b"A" + key_id + bytes(16) + digest() + APPROVE)


def no_json(client: redis.Redis) -> None:
    client.set(KEY, b"A<script>alert(1)</script>")


def empty(client: redis.Redis) -> None:
    client.set(KEY, b"")


def a_claim_for_ever(client: redis.Redis) -> None:
    client.set(KEY, b"C" + bytes(20) + digest() + b"stranger")


def a_hash(client: redis.Redis) -> None:
    client.hset(KEY, mapping={"A": "B"})


def signed_for_another_purpose(client: redis.Redis) -> None:
    content = digest() + APPROVE
    signature = open_keys(load_settings()).seal("control").sign(b"%b%d:%b%b" % (b"A", len(KEY), KEY, content))
    client.set(KEY, b"A" + signature + content)


PLANTED = (
    unsigned, of_random_signature, with_a_known_keys_id, no_json, empty, a_claim_for_ever, a_hash,
    signed_for_another_purpose,
)  # fmt: skip


@H6
@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_value_neither_decides_nor_blocks_a_payment(
    home: Path, url: str, plant: Callable[[redis.Redis], None]
) -> None:
    client = redis.Redis.from_url(url)
    plant(client)

    async def run() -> None:
        async with worker(home, url) as (engine, post), worker(home, url) as (_, again):
            answer = await post(transaction_id="future")
            assert answer.status_code == 200
            assert answer.json()["model_version"] == "one"
            assert engine.metrics.counters["unverified_total"]["answer",] == 1
            # It is remembered as any other is, for every worker, and entered the event log.
            assert (await again(transaction_id="future")).content == answer.content
            assert (await again(transaction_id="future", amount="1.00")).status_code == 409

    asyncio.run(run())
    assert [row["transaction_id"] for row in logged(home)] == ["future"]
    assert events(url) == ["future"]


@H6
def test_an_answer_moved_to_another_id_is_none_there(home: Path, url: str) -> None:
    client = redis.Redis.from_url(url)

    async def run() -> None:
        async with worker(home, url) as (_, first), worker(home, url) as (engine, second):
            small = await first(transaction_id="small", amount="1.00")
            value = client.get(answer_key("tollgate", "small"))
            assert isinstance(value, bytes)
            client.set(KEY, value)
            answer = await second(transaction_id="future", amount="99999.00")
            assert answer.json()["transaction_id"] == "future"
            assert answer.content != small.content
            assert engine.metrics.counters["unverified_total"]["answer",] == 1

    asyncio.run(run())
    assert sorted(events(url)) == ["future", "small"]


@H6
def test_of_workers_that_come_upon_a_planted_value_one_decides(home: Path, url: str) -> None:
    unsigned(redis.Redis.from_url(url))

    async def run() -> None:
        async with worker(home, url) as (_, first), worker(home, url) as (_, second):
            answers = await asyncio.gather(*(post(transaction_id="future") for post in (first, second)))
            assert {answer.status_code for answer in answers} <= {200, 503}
            decided = {answer.content for answer in answers if answer.status_code == 200}
            assert len(decided) == 1
            assert {(await post(transaction_id="future")).content for post in (first, second)} == decided

    asyncio.run(run())
    assert events(url) == ["future"]
    assert len(logged(home)) == 1


@H6
def test_a_planted_record_in_the_workers_own_files_is_no_answer(home: Path, tmp_path: Path) -> None:
    away = "redis://127.0.0.1:1/0"

    async def run() -> None:
        async with worker(home, away, serve_workers=2, run=tmp_path / "run") as (engine, post):
            planted = len(KEY).to_bytes(2, "little") + KEY + b"A" + bytes(20) + digest() + APPROVE
            (tmp_path / "run" / "answers" / "planted-00000000.answers").write_bytes(
                frame(planted) + frame(b"?")
            )
            answer = await post(transaction_id="future")
            assert answer.status_code == 200
            assert answer.json()["model_version"] == "one"
            assert engine.metrics.counters["unverified_total"]["sibling",] == 2

    asyncio.run(run())
    assert [row["transaction_id"] for row in logged(home)] == ["future"]


@pytest.mark.finding("L1", "low", "One value in Redis that is not JSON ended the audit with a traceback")
def test_the_audit_of_remembered_answers_survives_anything_in_redis(home: Path, url: str) -> None:
    client = redis.Redis.from_url(url)
    seal = open_keys(load_settings()).seal("answers")

    async def run() -> None:
        async with worker(home, url) as (_, post):
            assert (await post(transaction_id="honest")).status_code == 200

    asyncio.run(run())
    for number, value in enumerate(
        (b"", b"A", b"A{}", b"\xff" * 300, b"C" + bytes(50), b"A" + bytes(40) + APPROVE)
    ):
        client.set(answer_key("tollgate", f"planted-{number}"), value)
    client.hset(answer_key("tollgate", "hash"), "a", "b")
    client.set(b"tollgate:answer:tollgate:\xff\xfe\x1b[2J", b"x")
    content = b"d" * 16 + b"[]"
    key = answer_key("tollgate", "no answer")
    client.set(key, b"A" + seal.sign(b"A%d:%b%b" % (len(key), key, content)) + content)
    problems: list[str] = []
    found = outcomes(remembered_answers(url, "tollgate", seal), problems)
    assert set(found) == {"honest"}
    assert len(problems) == 9
    assert all(problem.isprintable() for problem in problems)
    assert "what Redis remembers of transaction planted-2 was written by somebody else" in problems


def test_the_digest_that_an_attacker_computes_is_the_services(home: Path) -> None:
    async def run() -> None:
        work = Work(transaction(transaction_id="future"), asyncio.get_running_loop().create_future(), 0.0)
        assert work.digest == digest()

    asyncio.run(run())
    assert msgspec.json.decode(APPROVE)["decision"] == "APPROVE"
