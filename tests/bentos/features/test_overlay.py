"""Recent payments over states, held to the list of everything that came before."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bentos.base.caller import Caller
from bentos.base.work import Asked, Work
from bentos.features.online_features import OnlineRows
from bentos.features.overlay import Overlay
from bentos.features.recent_events import ENTRY_BYTES, KEPT, RecentEvents
from bentos.wire.redis_connection import RedisConnection
from bentos.wire.replies import NO_REPLIES
from embedded.redis_server import RedisServer
from fraud.contract.times import EventTime
from fraud.features.entities import ENTITIES
from fraud.state.observation import Observation, observe_measured
from fraud.state.velocity import VelocityState
from fraud.state.windows import joined
from tests.bentos.running import transaction

CUSTOMER, CARD = 0, 1
START_MS = 1_772_366_400_000
numbers = itertools.count()


def payment(event_ms: int, known_us: int, *, card: str, customer: str, name: str | None = None) -> Work:
    """A payment that counts at `event_ms`, as far as it knows, and was known at `known_us`."""
    one = transaction(transaction_id=name or f"p{next(numbers)}", card_id=card, customer_id=customer)
    asked = Asked(one, event_ms, 1250, EventTime(event_ms), Caller("till"), known_us)
    work = Work.of(asked, asyncio.get_running_loop().create_future(), 0.0)
    work.known_us = known_us
    return work


def observed(work: Work) -> Observation:
    return observe_measured(work.transaction, work.event_ms, work.amount_minor)


def state_of(place: int, arrivals: list[Work]) -> bytes | None:
    """The state of an entity that has counted `arrivals`."""
    if not arrivals:
        return None
    state = VelocityState(ENTITIES[place])
    for work in arrivals:
        state.add(observed(work), place)
    return state.pack()


def rows_of(batch: list[Work], states: dict[int, list[bytes | None]]) -> OnlineRows:
    """Rows that hold nothing but these states, by place."""
    nothing: list[bytes | None] = [None] * len(batch)
    columns = [states.get(place, nothing) for place in range(len(ENTITIES))]
    words, ends = joined([state for column in columns for state in column])
    empty = np.empty((len(batch), 0))
    known = [work.known_us for work in batch]
    return OnlineRows(words, ends, empty, empty, [{} for _ in batch], [{} for _ in batch], known)


@dataclass
class Worker:
    """A worker's memory of the last seconds."""

    connection: RedisConnection
    project: str
    recent: RecentEvents = field(init=False)
    overlay: Overlay = field(init=False)

    def __post_init__(self) -> None:
        self.recent = RecentEvents(self.project, 60)
        self.overlay = Overlay(self.recent)

    async def lay(self, batch: list[Work], states: dict[int, list[bytes | None]]) -> OnlineRows:
        """What `batch` finds, given what the stream has written."""
        noted = self.recent.note(batch)
        replies = await self.connection.ask(noted.commands, 5.0)
        return self.put(batch, states, self.recent.before(batch, noted, replies, 0))

    def put(self, batch: list[Work], states: dict[int, list[bytes | None]], before: dict) -> OnlineRows:  # type: ignore[type-arg]
        online = rows_of(batch, states)
        if before:
            self.overlay.put(batch, online, before)
        for work, known_us in zip(batch, online.known_us, strict=True):
            if work.known_us != known_us:
                work.known_us = known_us
                self.recent.moved(work)
        return online


# A payment: by which worker, of which card, how many milliseconds before (or after) the newest it says it
# happened, and of how many of those before it the stream has written the states by then.
payments = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 1),
        st.sampled_from([0, 0, 1, 40, -1, -500, -360_000]),
        st.integers(0, 40),
    ),
    min_size=1,
    max_size=40,
)
some = settings(
    max_examples=60, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
)


@some
@given(payments)
def test_a_payment_sees_all_that_came_before_whoever_decided_it_and_however_far_the_stream_is(
    redis_server: RedisServer, script: list[tuple[int, int, int, int]]
) -> None:
    async def run() -> None:
        connection = RedisConnection(f"redis://127.0.0.1:{redis_server.port}/11")
        await connection.open()
        project = f"overlay{next(numbers)}"
        workers = [Worker(connection, project), Worker(connection, project)]
        arrived: list[Work] = []
        clock_us, newest_ms = START_MS * 1000, START_MS
        for worker, card, step, lag in script:
            clock_us += 700
            event_ms = newest_ms + step
            newest_ms = max(newest_ms, event_ms)
            work = payment(event_ms, clock_us, card=f"card-{card}", customer=f"holder-{clock_us}")
            mine = [one for one in arrived if one.transaction.card_id == work.transaction.card_id]
            written = mine[: max(len(mine) - lag, 0)]
            online = await workers[worker].lay([work], {CARD: [state_of(CARD, written)]})
            expected = state_of(CARD, mine)
            assert online.states[CARD][0] == expected
            assert set(work.overlaid) == {one.known_us for one in mine[len(written) :]}
            assert all(one.known_us < work.known_us for one in mine)
            assert work.event_ms == max([event_ms, *[one.event_ms for one in mine]])
            arrived.append(work)
        connection.close()

    asyncio.run(run())


@some
@given(payments, st.integers(1, 7))
def test_within_a_batch_each_payment_sees_those_before_it(
    redis_server: RedisServer, script: list[tuple[int, int, int, int]], size: int
) -> None:
    async def run() -> None:
        connection = RedisConnection(f"redis://127.0.0.1:{redis_server.port}/11")
        await connection.open()
        worker = Worker(connection, f"overlay{next(numbers)}")
        arrived: list[Work] = []
        clock_us = START_MS * 1000
        for first in range(0, len(script), size):
            batch = []
            for _, card, step, _ in script[first : first + size]:
                clock_us += 1
                batch.append(payment(START_MS + step, clock_us, card=f"card-{card}", customer="somebody"))
            everybody = [*arrived, *batch]
            online = await worker.lay(batch, {})
            for place, key in ((CARD, "card_id"), (CUSTOMER, "customer_id")):
                for row, work in enumerate(batch):
                    value = getattr(work.transaction, key)
                    mine = [
                        one
                        for one in everybody[: len(arrived) + row]
                        if getattr(one.transaction, key) == value
                    ]
                    assert online.states[place][row] == state_of(place, mine), (place, row)
            arrived = everybody
        connection.close()

    asyncio.run(run())


def test_without_redis_a_worker_still_knows_its_own(redis_server: RedisServer) -> None:
    async def run() -> None:
        worker = Worker(RedisConnection("redis://127.0.0.1:1/0"), "away")
        arrived: list[Work] = []
        for number in range(2 * KEPT):
            work = payment(START_MS, START_MS * 1000 + number, card="c", customer="somebody")
            noted = worker.recent.note([work])
            online = worker.put([work], {}, worker.recent.before([work], noted, NO_REPLIES, 0))
            assert online.states[CARD][0] == state_of(CARD, arrived)
            arrived.append(work)

    asyncio.run(run())


def test_a_payment_that_is_asked_for_again_does_not_count_itself(redis_server: RedisServer) -> None:
    async def run() -> None:
        connection = RedisConnection(f"redis://127.0.0.1:{redis_server.port}/11")
        await connection.open()
        project = f"overlay{next(numbers)}"
        one, other = Worker(connection, project), Worker(connection, project)
        first = payment(START_MS, START_MS * 1000, card="c", customer="s", name="first")
        await one.lay([first], {})
        again = payment(START_MS, START_MS * 1000 + 50, card="c", customer="s", name="first")
        online = await other.lay([again], {})
        assert online.states[CARD][0] is None and again.overlaid == ()
        # Once, to those that come after both.
        third = payment(START_MS, START_MS * 1000 + 90, card="c", customer="s")
        online = await other.lay([third], {})
        assert online.states[CARD][0] == state_of(CARD, [first])
        connection.close()

    asyncio.run(run())


def test_a_list_is_cut_once_it_is_long_and_goes_by_itself(redis_server: RedisServer) -> None:
    async def run() -> None:
        connection = RedisConnection(f"redis://127.0.0.1:{redis_server.port}/11")
        await connection.open()
        project = f"overlay{next(numbers)}"
        worker, arrived = Worker(connection, project), []
        for number in range(5 * KEPT):
            work = payment(START_MS + number, START_MS * 1000 + number, card="c", customer="s")
            online = await worker.lay([work], {})
            found = VelocityState.unpack(ENTITIES[CARD], online.states[CARD][0] or b"") if number else None
            # All of them as long as there are few; of many never fewer than are kept.
            assert found is None or len(found.events) // 2 >= min(number, KEPT)
            arrived.append(work)
        client = redis.Redis.from_url(f"redis://127.0.0.1:{redis_server.port}/11")
        key = f"tollgate:recent:{project}:c"
        assert client.strlen(key) <= (2 * KEPT + 2) * ENTRY_BYTES
        assert 0 < client.ttl(key) <= 60
        connection.close()

    asyncio.run(run())


@pytest.mark.parametrize("noise", [b"", b"x", b"x" * ENTRY_BYTES, b"x" * (3 * ENTRY_BYTES)])
def test_what_somebody_else_wrote_under_the_key_stops_nobody(redis_server: RedisServer, noise: bytes) -> None:
    async def run() -> None:
        connection = RedisConnection(f"redis://127.0.0.1:{redis_server.port}/11")
        await connection.open()
        project = f"overlay{next(numbers)}"
        client = redis.Redis.from_url(f"redis://127.0.0.1:{redis_server.port}/11")
        client.set(f"tollgate:recent:{project}:c", noise)
        worker = Worker(connection, project)
        for number in range(3):
            work = payment(START_MS, START_MS * 1000 + number, card="c", customer="s")
            await worker.lay([work], {})
        client.delete(f"tollgate:recent:{project}:c")
        client.lpush(f"tollgate:recent:{project}:c", "another type")
        work = payment(START_MS, START_MS * 1000 + 9, card="c", customer="s")
        online = await worker.lay([work], {})
        assert online.states[CARD][0] is not None, "what the worker itself knows"
        connection.close()

    asyncio.run(run())


def test_a_replay_tells_nobody_and_is_told_nothing(redis_server: RedisServer) -> None:
    async def run() -> None:
        recent = RecentEvents("replays", 60)
        work = Work(transaction(transaction_id="past"), asyncio.get_running_loop().create_future(), 0.0)
        noted = recent.note([work])
        assert noted.commands == []
        assert recent.before([work], noted, NO_REPLIES, 0) == {}

    asyncio.run(run())


def test_it_can_be_turned_off(redis_server: RedisServer) -> None:
    async def run() -> None:
        recent = RecentEvents("off", 0)
        batch = [payment(START_MS, START_MS * 1000 + n, card="c", customer="s") for n in range(2)]
        noted = recent.note(batch)
        assert noted.commands == []
        assert recent.before(batch, noted, NO_REPLIES, 0) == {}

    asyncio.run(run())
