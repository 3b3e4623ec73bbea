"""Micro-batching and the circuit breaker."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from bentos.scoring.batcher import MicroBatcher, Overloaded
from bentos.wire.breaker import CircuitBreaker


def test_a_lone_item_is_run_at_the_next_tick() -> None:
    async def run() -> list[list[int]]:
        batches: list[list[int]] = []

        async def keep(batch: list[int]) -> None:
            batches.append(batch)

        batcher = MicroBatcher(keep)
        batcher.submit(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return batches

    assert asyncio.run(run()) == [[1]]


#   submit 1      2 3 4 5 6 arrive while [1] is under way        [1] ends
#   |--- [1] -----------------------------------------------------|--- [2 3 4] --- [5 6]
def test_what_arrives_during_a_batch_forms_the_next_ones() -> None:
    async def run() -> list[list[int]]:
        batches: list[list[int]] = []
        gate = asyncio.Event()

        async def hold(batch: list[int]) -> None:
            batches.append(batch)
            await gate.wait()

        batcher = MicroBatcher(hold, size=3, in_flight=1)
        batcher.submit(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for item in range(2, 7):
            batcher.submit(item)
        await asyncio.sleep(0.01)
        assert batches == [[1]]
        gate.set()
        await batcher.drain()
        return batches

    assert asyncio.run(run()) == [[1], [2, 3, 4], [5, 6]]


def test_a_surge_is_turned_away_by_its_waiting_time_but_a_hiccup_is_not() -> None:
    async def run() -> list[int]:
        taken: list[int] = []
        gate = asyncio.Event()

        async def hold(batch: list[int]) -> None:
            await gate.wait()
            taken.extend(batch)

        batcher = MicroBatcher(hold, size=2, in_flight=1, longest_wait=0.01)
        batcher.submit(1)
        await asyncio.sleep(0)
        batcher.submit(2)
        await asyncio.sleep(0.03)
        batcher.submit(3)  # 2 is late, but both are decided at the next turn
        with pytest.raises(Overloaded, match="in time"):
            batcher.submit(4)
        gate.set()
        await batcher.drain()
        return taken

    assert asyncio.run(run()) == [1, 2, 3]


#   arrive   40   40   40   40      3    40    (a decision takes 2 ms, in 20 ms are 10 of them)
#   before       long long long calm
#   taken    40   40   10   10      3    40
def test_in_a_surge_no_more_may_wait_than_can_be_decided_in_time() -> None:
    async def run() -> list[int]:
        async def decide(batch: list[int]) -> None:
            time.sleep(0.002 * len(batch))  # it is processor time, as a model's is

        batcher = MicroBatcher(decide, size=32, in_flight=1, longest_wait=0.01)

        async def turn(arrivals: int) -> int:
            """Of `arrivals` that a turn of the loop has read, how many are taken."""
            taken = 0
            for item in range(arrivals):
                with suppress(Overloaded):
                    batcher.submit(item)
                    taken += 1
            await batcher.drain()
            return taken

        found = [await turn(40) for _ in range(4)]
        await asyncio.sleep(0.15)
        return [*found, await turn(3), await turn(40)]

    found = asyncio.run(run())
    assert found[:2] == [40, 40]
    assert 8 <= found[2] <= 10 and 8 <= found[3] <= 10  # a sleep takes a little longer than it should
    assert found[4:] == [3, 40]


def test_a_surge_begins_when_batches_are_late_though_no_turn_is_long() -> None:
    async def run() -> tuple[list[int], int]:
        sizes: list[int] = []

        async def decide(batch: list[int]) -> None:
            sizes.append(len(batch))
            await asyncio.sleep(0.05)  # no turn of the loop is long

        batcher = MicroBatcher(decide, size=16, in_flight=2, longest_wait=0.01)
        for _ in range(40):
            for item in range(20):
                with suppress(Overloaded):
                    batcher.submit(item)
            await asyncio.sleep(0.005)
        waiting = batcher.waiting
        await batcher.drain()
        return sizes, waiting

    sizes, waiting = asyncio.run(run())
    assert max(sizes) == 16
    assert sizes[-1] <= 8 and waiting <= 8


def test_what_waits_when_a_surge_begins_is_turned_away_oldest_first() -> None:
    async def run() -> tuple[list[int], list[int], int]:
        decided: list[int] = []
        gone: list[int] = []

        async def decide(batch: list[int]) -> None:
            await asyncio.sleep(0.04)
            decided.extend(batch)

        batcher = MicroBatcher(decide, size=16, in_flight=2, longest_wait=0.01, turn_away=gone.append)
        came = 0
        for _ in range(30):
            for _ in range(20):
                with suppress(Overloaded):
                    batcher.submit(came)
                    came += 1
            await asyncio.sleep(0.005)
        await batcher.drain()
        return decided, gone, came

    decided, gone, came = asyncio.run(run())
    assert sorted(decided + gone) == list(range(came))
    assert gone == sorted(gone) and len(gone) >= 8
    # Nobody who came before the surge and was decided had waited longer than those it turned away.
    assert [item for item in decided if item < gone[0]] == list(range(gone[0]))


def test_callers_that_wait_for_their_answers_are_no_surge_however_slow_a_batch_is() -> None:
    async def run() -> int:
        answered = 0
        answers: dict[int, asyncio.Future[None]] = {}

        async def decide(batch: list[int]) -> None:
            await asyncio.sleep(0.03)  # longer than twice the longest wait
            for caller in batch:
                answers[caller].set_result(None)

        batcher = MicroBatcher(decide, size=16, in_flight=2, longest_wait=0.01)

        async def call(caller: int) -> None:
            nonlocal answered
            for _ in range(8):
                answers[caller] = asyncio.get_running_loop().create_future()
                batcher.submit(caller)
                await answers[caller]
                answered += 1

        await asyncio.gather(*[call(caller) for caller in range(32)])
        return answered

    assert asyncio.run(run()) == 32 * 8


def test_bursts_with_silence_between_them_are_no_surge() -> None:
    async def run() -> list[int]:
        decided: list[int] = []

        async def decide(batch: list[int]) -> None:
            time.sleep(0.002 * len(batch))
            decided.extend(batch)

        batcher = MicroBatcher(decide, size=32, in_flight=1, longest_wait=0.01)
        for burst in range(4):
            for item in range(40):
                batcher.submit(40 * burst + item)
            await batcher.drain()
            await asyncio.sleep(0.03)
        return decided

    assert asyncio.run(run()) == list(range(160))


def test_the_queue_is_bounded() -> None:
    async def run() -> None:
        async def never(batch: list[int]) -> None:
            await asyncio.Event().wait()

        batcher = MicroBatcher(never, size=1, in_flight=1, queue=2)
        batcher.submit(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        batcher.submit(1)
        batcher.submit(2)
        with pytest.raises(Overloaded):
            batcher.submit(3)

    asyncio.run(run())


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


#   5 failures         0.25 s: one probe fails      0.5 s later: one probe works
#   closed -> open ----- half-open -> open ----------- half-open -> closed
def test_the_breaker_opens_probes_and_closes() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=5, pause=0.25, clock=clock)
    for _ in range(4):
        breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert breaker.state == "open"
    assert not breaker.allows()
    clock.now = 0.3
    assert breaker.allows()
    assert not breaker.allows()
    breaker.failed()
    clock.now = 0.6
    assert not breaker.allows()
    clock.now = 0.9
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.allows()


def test_a_probe_that_never_reports_does_not_block_for_ever() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=1, pause=1.0, clock=clock)
    breaker.failed()
    clock.now = 1.5
    assert breaker.allows()
    clock.now = 3.0
    assert breaker.allows()
