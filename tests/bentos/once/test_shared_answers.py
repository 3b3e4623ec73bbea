"""The files in which a machine's workers find each other's answers, and the page of who owes some."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from bentos.base.metrics import Metrics
from bentos.base.problem import Problem
from bentos.base.work import Work
from bentos.once.claims import answer_key, answer_value
from bentos.once.memory import Memory
from bentos.once.owing import Owing
from bentos.once.shared_answers import SharedAnswers
from stores.keys import open_keys
from stores.settings import load_settings
from tests.bentos.running import transaction

SEAL = open_keys(load_settings()).seal("answers")


def shared_answers(run: Path, workers: int, metrics: Metrics | None = None) -> SharedAnswers:
    return SharedAnswers(run, workers, SEAL, metrics or Metrics())


def works(*names: str, **changes: str) -> list[Work]:
    loop = asyncio.get_running_loop()
    made = [Work(transaction(transaction_id=name, **changes), loop.create_future(), 0.0) for name in names]
    for work in made:
        work.key = answer_key("p", work.transaction.transaction_id)
    return made


def publish_outside_a_turn(shared: SharedAnswers, *names: str) -> None:
    batch = works(*names)
    values = [
        answer_value(SEAL, work.key, work.digest, b"answer to " + name.encode())
        for work, name in zip(batch, names, strict=True)
    ]
    shared.publish(batch, values)


def publish(shared: SharedAnswers, *names: str) -> None:
    with shared.turn() as mine:
        assert mine
        publish_outside_a_turn(shared, *names)


def known(shared: SharedAnswers, *names: str) -> set[str]:
    """Which of `names` another worker has answered."""
    batch = works(*names)
    with shared.turn() as mine:
        assert mine
        left = shared.undecided(batch, Memory())
    for place, work in enumerate(batch):
        assert place in left or work.future.result() == b"answer to " + names[place].encode()
    return {name for place, name in enumerate(names) if place not in left}


def test_a_worker_knows_what_the_others_answered_and_refuses_another_body(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = shared_answers(tmp_path, 2), shared_answers(tmp_path, 2)
        publish(first, "a", "ä" * 64)
        assert known(second, "a", "b", "ä" * 64) == {"a", "ä" * 64}
        publish(first, "b")
        assert known(second, "b") == {"b"}
        memory, (other,) = Memory(), works("b", country="FR")
        assert second.undecided([other], memory) == []
        with pytest.raises(Problem, match="409"):
            other.future.result()
        assert memory.answer("b") is None
        for shared in (first, second):
            shared.close(owes=False)

    asyncio.run(run())


def test_answers_given_outside_a_turn_are_found_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = shared_answers(tmp_path, 2), shared_answers(tmp_path, 2)
        names = [f"t{n}" for n in range(50)]
        for name in names:
            publish_outside_a_turn(first, name)
            assert known(second, name) == {name}
        assert known(second, *names) == set(names)
        publish_outside_a_turn(first, "last")
        first.close(owes=False)
        assert known(second, "last") == {"last"}

    asyncio.run(run())


def test_files_stay_small_and_keep_the_newest_answers(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = shared_answers(tmp_path, 10), shared_answers(tmp_path, 10)
        names = [f"t{n}" for n in range(9_000)]
        for start in range(0, len(names), 60):
            publish(first, *names[start : start + 60])
        files = sorted(tmp_path.glob("answers/*.answers"))
        assert len(files) == 3  # two of the first worker, one of the second
        assert known(second, *names) >= set(names[-2_000:])
        assert len(known(shared_answers(tmp_path, 10), *names)) < 5_000
        first.close(owes=False)
        assert known(second, names[-1]) == {names[-1]}

    asyncio.run(run())


def test_of_workers_that_are_gone_the_last_ones_answers_stay_for_a_day(tmp_path: Path) -> None:
    async def run() -> None:
        for n in range(8):
            gone = shared_answers(tmp_path, 2)
            publish(gone, f"t{n}")
            (path,) = tmp_path.glob(f"answers/{gone._series}*.answers")
            gone.close(owes=False)
            age = 100_000 if n == 7 else 60 - n
            os.utime(path, (time.time() - age,) * 2)
        shared = shared_answers(tmp_path, 2)
        assert known(shared, *(f"t{n}" for n in range(8))) == {"t3", "t4", "t5", "t6"}
        shared.close(owes=False)

    asyncio.run(run())


def test_a_torn_end_hides_only_itself(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = shared_answers(tmp_path, 2), shared_answers(tmp_path, 2)
        publish(first, "a")
        publish(first, "b")
        (path,) = tmp_path.glob(f"answers/{first._series}*.answers")
        os.truncate(path, path.stat().st_size - 3)
        assert known(second, "a", "b") == {"a"}

    asyncio.run(run())


def test_a_debt_is_seen_by_all_until_it_is_paid_and_outlives_its_worker_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Owing(tmp_path / "owing"), Owing(tmp_path / "owing")
    assert not second.anybody
    first.owe()
    assert first.anybody
    assert second.anybody
    first.paid()  # too early to know
    assert second.anybody
    monotonic, now = time.monotonic(), time.time_ns()
    monkeypatch.setattr(time, "monotonic", lambda: monotonic + 2)
    first.paid()
    assert not second.anybody
    first.owe()
    first.close()  # as if it had been killed
    second.tidy()
    assert second.anybody
    monkeypatch.setattr(time, "time_ns", lambda: now + 200 * 10**9)
    assert not second.anybody
    second.tidy()
    monkeypatch.undo()
    assert not second.anybody
    second.close()
