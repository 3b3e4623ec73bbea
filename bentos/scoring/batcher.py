"""Micro-batching without a timer: a lone request waits for nobody.

`submit` appends; if a slot is free a flush is scheduled for the next tick of the event loop, so
that requests which arrived in the same tick share a batch. While batches are under way,
arrivals gather, and form the next one when a slot frees. The batch size so follows the load.

What arrives faster than it can be decided waits in two places: in the queue here, which has
bounds, and unread in the sockets, where it has none. An event loop reads every socket that is
ready before it runs what it read, so that a surge makes its turns long, and a long turn is what
a request waits that comes during it. In a surge the batcher therefore takes no more than it can
decide in time (`Room`): what is turned away costs a fraction of a decision.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

#: Fewest that may wait, however slow decisions are.
LEAST_ROOM: Final = 8
#: Seconds without anybody turned away after which a surge is over.
CALM: Final = 0.1
#: What a surge says to those that it turns away.
IN_TIME: Final = "more transactions arrive than can be decided in time"


class Overloaded(RuntimeError):
    """The queue is at a bound; the caller should come back later."""


class Room:
    """How many items may wait before new ones can be turned away: `most`, and in a surge so many that
    the oldest of a batch is decided `longest` seconds after it came, about.

    A surge begins when batches were not decided in time, for want of room, whose oldest items came half
    of `longest` apart; or with the second of two turns of the loop in a row that had no room for an item
    and were longer than `longest`. (A turn is timed from that item until the loop has run what was read
    then and read again.) From then on a quarter may wait, at least `LEAST_ROOM`; one more with each
    batch decided in time, a quarter less with each that was not: as many are decided in short turns as
    in long ones, and every item waits for a few turns. The surge is over once there was room for
    everybody for `CALM` seconds.
    """

    def __init__(self, most: int, longest: float) -> None:
        self.now = most
        self._most = most
        self._longest = longest
        self._full_last = float("-inf")
        self._began: float | None = None  # when the turn that is timed had no room
        self._long_until = float("-inf")
        self._late_from: float | None = None  # when the oldest came of the first of late batches

    @property
    def narrow(self) -> bool:
        """Whether there is less room than without a surge."""
        return self.now < self._most

    def decided(self, came: float, now: float) -> None:
        """A batch was decided whose oldest item had come at `came`."""
        in_time = now - came <= self._longest
        if self.narrow:
            room = self.now + 1 if in_time else self.now * 3 // 4
            self.now = min(self._most - 1, max(self._least, room))
        elif in_time or self._full_last < came:
            self._late_from = None
        elif self._late_from is None:
            self._late_from = came
        elif came - self._late_from >= self._longest / 2:
            self._begin()

    def idle(self) -> None:
        """Nothing waits and nothing is under way: that was a burst, and it is over."""
        self._late_from = None

    def full(self, waiting: int, now: float) -> bool:
        """Whether there is no room for an item that finds `waiting` others at `now`."""
        if now - self._full_last > CALM:
            self.now = self._most
        if waiting < self.now:
            return False
        self._full_last = now
        if self._began is None:
            self._began = now
            loop = asyncio.get_running_loop()
            # The second of two turns: what was read in this one has been run by then.
            loop.call_soon(loop.call_soon, self._judge)
        return True

    @property
    def _least(self) -> int:
        return min(LEAST_ROOM, self._most)

    def _judge(self) -> None:
        began, now = self._began, perf_counter()
        assert began is not None
        self._began = None
        if now - began > self._longest:
            if began - self._long_until <= self._longest and not self.narrow:
                self._begin()
            self._long_until = now

    def _begin(self) -> None:
        self.now = max(self._least, self._most // 4)
        self._late_from = None


class MicroBatcher(Generic[Item]):
    """Gathers items into calls of `run`, which must answer every item itself and not raise.

    At most `size` items a batch, `in_flight` batches at once and `queue` items waiting; and none
    is taken while as many wait as can be under way, the oldest of them for `longest_wait` seconds, so
    that a surge is turned away early instead of making everybody late. (Fewer are decided together at
    the next turns: turning one away would help nobody.) While that makes batches or turns of the event
    loop take longer than twice `longest_wait`, so few may wait that they are decided in that time: see
    `Room`. One event loop owns it.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[None]],
        *,
        size: int = 64,
        in_flight: int = 2,
        queue: int = 2048,
        longest_wait: float = float("inf"),
        turn_away: Callable[[Item], None] | None = None,
    ) -> None:
        self._run = run
        self._turn_away = turn_away
        self._size = size
        self._in_flight = in_flight
        self._queue = queue
        self._longest_wait = longest_wait
        self._room = Room(size * in_flight, 2 * longest_wait)
        self._pending: deque[tuple[float, Item]] = deque()
        self._scheduled = False
        #: Batches under way, and when the oldest item of each came.
        self._tasks: dict[asyncio.Task[None], float] = {}

    @property
    def waiting(self) -> int:
        return len(self._pending)

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    def check(self) -> float:
        """Raise `Overloaded` when the queue is at a bound; return the time it was looked at.

        Ask before an item is made: what is turned away should cost next to nothing.
        """
        waiting, room, now = len(self._pending), self._room, perf_counter()
        if waiting >= self._queue:
            raise Overloaded(f"{self._queue} transactions wait already")
        full = waiting >= room.now and room.full(waiting, now)
        if full and (room.narrow or now - self._pending[0][0] > self._longest_wait):
            raise Overloaded(IN_TIME)
        return now

    def submit(self, item: Item) -> None:
        """Queue `item`; raise `Overloaded` when the queue is at a bound."""
        self._pending.append((self.check(), item))
        if not self._scheduled and len(self._tasks) < self._in_flight:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        pending = self._pending
        if self._room.narrow and self._turn_away is not None:
            while len(pending) > self._room.now:
                self._turn_away(pending.popleft()[1])
        while pending and len(self._tasks) < self._in_flight:
            oldest = pending[0][0]
            batch = [pending.popleft()[1] for _ in range(min(self._size, len(pending)))]
            task = asyncio.ensure_future(self._run(batch))
            self._tasks[task] = oldest
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._room.decided(self._tasks.pop(task), perf_counter())
        # Not at once: what arrived while the batch was computed is still in the sockets, and the
        # loop reads them before its next turn.
        if self._pending and not self._scheduled:
            self._schedule()
        elif not self._pending and not self._tasks:
            self._room.idle()

    async def drain(self) -> None:
        """Wait until nothing is queued or under way."""
        while self._pending or self._tasks:
            self._flush()
            await asyncio.wait(self._tasks)
