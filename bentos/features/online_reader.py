"""The one round trip of a batch: read its features, and ask what else is to travel with them.

Every command of a batch goes out in one write, the claims of its transaction ids (`bentos.once`) among
them. What Redis does not answer by the deadline counts as timed out, view by view; after a few such
batches the circuit breaker spares callers the wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bentos.base.metrics import Metrics
from bentos.base.work import Work
from bentos.features.declared_rows import DeclaredPart, DeclaredRows
from bentos.features.feature_plan import PlanRoom
from bentos.features.online_features import OnlineFeatures, OnlineRows
from bentos.wire.breaker import CircuitBreaker
from bentos.wire.redis_cluster import connection_to
from bentos.wire.redis_connection import RedisUnavailable
from bentos.wire.replies import NO_REPLIES, Replies
from stores.declared import declared
from stores.settings import Settings

#: A second question is given at least so long, whatever the first one took.
_LEAST_SECONDS: Final = 0.002


@dataclass(slots=True)
class Read:
    """What a read brought: the batch's rows, and why they are not complete (None: they are).

    The first of `replies` are those to the commands that went out first, and from `last` on to those that
    went out last; `ask` asks a second question, within what is left of the deadline.
    """

    online: OnlineRows
    shortfall: str | None
    replies: Replies
    last: int
    ask: Callable[[list[bytes]], Awaitable[Replies]]


class OnlineReader:
    """Reads for one worker. One event loop owns it."""

    def __init__(self, chosen: Settings, metrics: Metrics) -> None:
        self._deadline = chosen.serve.feature_deadline_ms / 1000
        self._metrics = metrics
        self._connection = connection_to(chosen.redis.url)
        own = declared(chosen)
        #: Reads features of a team's own; None where none are declared.
        self.own = DeclaredRows(own, chosen.feast.project) if own.declarations.order else None
        self.plans = PlanRoom(chosen)
        self.breaker = CircuitBreaker(failures=3)

    async def read(
        self, batch: Sequence[Work], first: Sequence[bytes] = (), last: Sequence[bytes] = ()
    ) -> Read:
        """The rows of `batch`. The commands `first` go out before the features, and `last` behind them, in
        the same write."""
        features, until = self.plans.features, self._until()  # one plan for the question and its answer
        part: DeclaredPart | None = None
        behind: list[bytes] = []
        if self.own is not None:
            behind, part = self.own.begin(batch)
        asked = features.commands([work.transaction for work in batch])
        commands = [*first, *asked, *behind, *last]
        replies, shortfall = await self._ask(commands)
        online, shortfall = await self._rows(batch, features, replies, len(first), shortfall, until)
        if self.own is not None and part is not None:
            at = [1000 * work.event_ms for work in batch]
            self.own.fill(part, at, replies, len(first) + len(asked))
            online.add(part)
        ask = partial(self._ask_again, until=until)
        return Read(online, shortfall, replies, len(commands) - len(last), ask)

    def _until(self) -> float:
        """When what is asked now has to be there."""
        return asyncio.get_running_loop().time() + self._deadline

    async def _ask(self, commands: list[bytes]) -> tuple[Replies, str | None]:
        """The replies to `commands`, as far as they came, and why not all did."""
        if not self.breaker.allows():
            return NO_REPLIES, "features:breaker_open"
        try:
            replies = await self._connection.ask(commands, self._deadline)
        except RedisUnavailable:
            self.breaker.failed()
            return NO_REPLIES, "features:unavailable"
        if replies.gaps:  # a node of the cluster is away, and has a breaker of its own
            return replies, "features:timeout"
        if len(replies) < len(commands):
            self.breaker.failed()
            return replies, "features:timeout"
        self.breaker.succeeded()
        return replies, None

    async def _rows(
        self, batch: Sequence[Work], features: OnlineFeatures, replies: Replies, first: int,
        shortfall: str | None, until: float,
    ) -> tuple[OnlineRows, str | None]:  # fmt: skip
        """The rows in the replies from `first` on, and why they are not complete."""
        transactions, known_us = [work.transaction for work in batch], [work.known_us for work in batch]
        online = features.rows(transactions, known_us, replies, first)
        if online.again:
            self._metrics.count("profiles_read_again_total", by=len(online.again))
            commands = features.profile_commands(transactions, online)
            found = await self._ask_again(commands, until)
            features.complete(online, found)
            if len(found) < len(commands) or found.gaps:
                shortfall = shortfall or "features:timeout"
        return online, shortfall or _refused(online)

    async def _ask_again(self, commands: list[bytes], until: float) -> Replies:
        """The replies to a second question, as far as they come in what is left of the deadline."""
        left = until - asyncio.get_running_loop().time()
        try:
            return await self._connection.ask(commands, max(left, _LEAST_SECONDS))
        except RedisUnavailable:
            return NO_REPLIES

    async def close(self) -> None:
        await self.plans.close()
        self._connection.close()


def _refused(online: OnlineRows) -> str | None:
    """The shortfall when every reply came in time and some are errors: a server that is loading, a
    cluster that has lost slots.
    """
    return "features:refused" if online.unanswered else None
