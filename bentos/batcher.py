"""Micro-batching without a timer: a lone request waits for nobody.

`submit` appends; if a slot is free a flush is scheduled for the next tick of the event loop, so
that requests which arrived in the same tick share a batch. While batches are under way,
arrivals gather, and form the next one when a slot frees. The batch size so follows the load.

What arrives faster than it can be decided waits in two places: in the queue here, which has
bounds, and unread in the sockets, where it has none. An event loop reads every socket that is
ready before it runs what it read, so that a surge makes its turns long, and a long turn is what
a request waits that comes during it. In a surge the batcher therefore takes fewer a turn (`Room`)
until turns are short again: what is turned away costs a fraction of a decision.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

#: Fewest that are taken a turn, however long turns are.
LEAST_ROOM: Final = 8


class Overloaded(RuntimeError):
    """The queue is at a bound; the caller should come back later."""


class Room:
    """How many items may wait before new ones can be turned away: `most`, and fewer in a surge.

    A turn of the event loop is judged if it found no room for an item: it lasts from that moment
    to the first item of a later turn. The second in a row that lasted longer than `longest`
    seconds, and each that follows it, halves the room, down to `LEAST_ROOM`; a shorter one adds
    `LEAST_ROOM`, and a turn that had room for everybody doubles it.
    """

    def __init__(self, most: int, longest: float) -> None:
        self.now = most
        self.turn_over = False
        self._most = most
        self._longest = longest
        self._began = 0.0
        self._full = False
        self._was_long = False
        self._watching = False

    @property
    def narrow(self) -> bool:
        """Whether there is less room than without a surge."""
        return self.now < self._most

    def next_turn(self, now: float) -> None:
        """Judge the turn that is over (`turn_over`), as somebody asks in a later one at `now`."""
        long = self._full and now - self._began > self._longest
        if long and self._was_long:
            self.now = min(self._most, max(LEAST_ROOM, self.now // 2))
        elif not long:
            self.now = min(self._most, self.now + LEAST_ROOM if self._full else 2 * self.now)
        self._was_long = long
        self._full = self._watching = self.turn_over = False
        if self.narrow:
            self._watch(now)

    def full(self, now: float) -> None:
        """Somebody finds no room at `now`."""
        self._full = True
        if not self._watching:
            self._watch(now)

    def _watch(self, now: float) -> None:
        self._began = now
        self._watching = True
        asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self.turn_over = True


class MicroBatcher(Generic[Item]):
    """Gathers items into calls of `run`, which must answer every item itself and not raise.

    At most `size` items a batch, `in_flight` batches at once and `queue` items waiting; and none
    is taken while the oldest of a full batch or more has waited `longest_wait` seconds, so that a
    surge is turned away early instead of making everybody late. (Fewer than a batch are decided
    together at the next turn: turning one away would help nobody.) While turns of the event loop
    in which more than a batch arrives last longer than twice `longest_wait`, less may wait: see
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
    ) -> None:
        self._run = run
        self._size = size
        self._in_flight = in_flight
        self._queue = queue
        self._longest_wait = longest_wait
        self._room = Room(size, 2 * longest_wait)
        self._pending: deque[tuple[float, Item]] = deque()
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

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
        if room.turn_over:
            room.next_turn(now)
        if waiting >= room.now:
            room.full(now)
            if room.narrow or now - self._pending[0][0] > self._longest_wait:
                raise Overloaded("more transactions arrive than can be decided in time")
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
        while self._pending and len(self._tasks) < self._in_flight:
            pending = self._pending
            batch = [pending.popleft()[1] for _ in range(min(self._size, len(pending)))]
            task = asyncio.ensure_future(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # Not at once: what arrived while the batch was computed is still in the sockets, and the
        # loop reads them before its next turn.
        if self._pending and not self._scheduled:
            self._schedule()

    async def drain(self) -> None:
        """Wait until nothing is queued or under way."""
        while self._pending or self._tasks:
            self._flush()
            await asyncio.wait(self._tasks)
