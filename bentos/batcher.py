"""Micro-batching without a timer: a lone request waits for nobody.

`submit` appends; if a slot is free a flush is scheduled for the next tick of the event loop, so
that requests which arrived in the same tick share a batch. While batches are under way,
arrivals gather, and form the next one when a slot frees. The batch size so follows the load.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Overloaded(RuntimeError):
    """The queue is at a bound; the caller should come back later."""


class MicroBatcher(Generic[Item]):
    """Gathers items into calls of `run`, which must answer every item itself and not raise.

    At most `size` items a batch, `in_flight` batches at once and `queue` items waiting; and none
    is taken while the oldest of a full batch or more has waited `longest_wait` seconds, so that a
    surge is turned away early instead of making everybody late. (Fewer than a batch are decided
    together at the next turn: turning one away would help nobody.) One event loop owns it.
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
        if len(self._pending) >= self._queue:
            raise Overloaded(f"{self._queue} transactions wait already")
        now = perf_counter()
        if len(self._pending) >= self._size and now - self._pending[0][0] > self._longest_wait:
            raise Overloaded("more transactions arrive than can be decided in time")
        return now

    def submit(self, item: Item) -> None:
        """Queue `item`; raise `Overloaded` when the queue is at a bound."""
        self._pending.append((self.check(), item))
        if not self._scheduled and len(self._tasks) < self._in_flight:
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
        if self._pending:
            self._flush()

    async def drain(self) -> None:
        """Wait until nothing is queued or under way."""
        while self._pending or self._tasks:
            self._flush()
            await asyncio.wait(self._tasks)
