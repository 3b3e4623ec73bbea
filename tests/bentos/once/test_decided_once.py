"""An id is decided once, whichever workers are asked, with Redis and without."""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections import Counter
from pathlib import Path

from embedded.redis_server import start_redis
from tests.bentos.one_worker import copied, events, logged, numbers, worker
from tests.either_server import redis_server

__all__ = ["redis_server"]  # a fixture


def test_an_answer_holds_across_workers_and_restarts(tmp_path: Path, store: Path, url: str) -> None:
    home = copied(store, tmp_path)

    async def run() -> None:
        async with worker(home, url) as (_, first), worker(home, url) as (_, second):
            answers = [await post(transaction_id="held") for post in (first, second, first)]
            assert {answer.content for answer in answers} == {answers[0].content}
            assert (await second(transaction_id="held", amount="99.00")).status_code == 409
        async with worker(home, url) as (_, third):
            assert (await third(transaction_id="held")).content == answers[0].content
            assert (await third(transaction_id="held", country="FR")).status_code == 409

    asyncio.run(run())
    assert events(url) == ["held"]
    assert [row["transaction_id"] for row in logged(home)] == ["held"]


def test_one_id_sent_to_two_workers_at_once_is_decided_once(tmp_path: Path, store: Path, url: str) -> None:
    home = copied(store, tmp_path)

    async def run() -> None:
        async with worker(home, url) as (_, first), worker(home, url) as (_, second):
            for n in range(20):
                answers = await asyncio.gather(
                    *(post(transaction_id=f"both-{n}") for post in (first, second, first))
                )
                decided = {answer.content for answer in answers if answer.status_code == 200}
                assert len(decided) == 1
                for answer in answers:
                    assert answer.status_code in (200, 503)
                    assert answer.status_code == 200 or answer.headers["retry-after"] == "1"
                assert {
                    (await post(transaction_id=f"both-{n}")).content for post in (first, second)
                } == decided

    asyncio.run(run())
    assert sorted(events(url)) == sorted(f"both-{n}" for n in range(20))
    assert len(logged(home)) == 20


def test_what_was_decided_without_redis_is_remembered_by_the_next_worker(tmp_path: Path, store: Path) -> None:
    home = copied(store, tmp_path)
    server = start_redis(tmp_path / "redis")
    server.stop()

    async def run() -> None:
        async with worker(home, server.url) as (_, post):
            first = await post(transaction_id="alone")
            assert "features:unavailable" in first.json()["degraded"]
        back = start_redis(tmp_path / "redis", server.port)
        try:
            async with worker(home, server.url) as (engine, post):
                while any(sink.spooled for sink in engine.scorer.sinks):
                    await asyncio.sleep(0.02)
                assert (await post(transaction_id="alone")).content == first.content
            assert events(server.url) == ["alone"]
        finally:
            back.stop()

    asyncio.run(run())


#   first    decides without redis ........ has not told it yet ........ tells it
#   second                          redis is back: its claim succeeds, and proves nothing
def test_until_redis_knows_what_was_decided_without_it_the_others_ask_each_other(
    tmp_path: Path, store: Path
) -> None:
    home = copied(store, tmp_path)
    server = start_redis(tmp_path / "redis")

    async def run() -> None:
        async with (
            worker(home, server.url, serve_workers=2) as (engine, first),
            worker(home, server.url, serve_workers=2) as (_, second),
        ):
            server.stop()
            engine._ticker.cancel()  # type: ignore[union-attr]  # it would tell Redis at once
            decided = await first(transaction_id="owed")
            assert "features:unavailable" in decided.json()["degraded"]
            back = start_redis(tmp_path / "redis", server.port)
            try:
                assert (await second(transaction_id="owed")).content == decided.content
                assert (await second(transaction_id="owed", country="FR")).status_code == 409
                while any(sink.spooled for sink in engine.scorer.sinks):
                    await engine.scorer.tick()
                    await asyncio.sleep(0.02)
                assert events(server.url).count("owed") == 1
                until = time.monotonic() + 20
                while engine.scorer.once.owed and time.monotonic() < until:
                    await engine.scorer.tick()
                    await asyncio.sleep(0.05)
                assert not engine.scorer.once.owed
            finally:
                back.stop()

    asyncio.run(run())
    assert Counter(row["transaction_id"] for row in logged(home))["owed"] == 1


def test_a_worker_that_keeps_the_turn_to_itself_holds_up_nobody_and_the_answer_says_so(
    tmp_path: Path, store: Path
) -> None:
    home = copied(store, tmp_path)
    server = start_redis(tmp_path / "redis")
    server.stop()

    async def run() -> None:
        async with worker(home, server.url, serve_workers=2) as (_, post):
            assert "idempotency:this_worker" not in (await post(transaction_id="free")).json()["degraded"]
            with (home / "run" / "answers" / "turn").open() as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)
                begun = time.monotonic()
                for n in range(50):
                    answer = (await post(transaction_id=f"kept-{n}")).json()
                    assert "idempotency:this_worker" in answer["degraded"]
                assert time.monotonic() - begun < 30
            until = time.monotonic() + 20
            while time.monotonic() < until:
                answer = (await post(transaction_id=f"freed-{next(numbers)}")).json()
                if "idempotency:this_worker" not in answer["degraded"]:
                    break
                await asyncio.sleep(0.05)
            assert "idempotency:this_worker" not in answer["degraded"]

    asyncio.run(run())


def test_one_worker_keeps_no_file_of_answers(tmp_path: Path, store: Path, url: str) -> None:
    home = copied(store, tmp_path)

    async def run() -> None:
        async with worker(home, url) as (_, post):
            assert (await post(transaction_id="alone")).status_code == 200

    asyncio.run(run())
    assert not (home / "run" / "answers").exists()


#   frozen       breaker open: nobody waits      thawed, a probe succeeds
#   |--timeout--timeout--timeout--|--open--open--|--half-open--closed
