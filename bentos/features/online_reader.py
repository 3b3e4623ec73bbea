"""The one round trip of a batch: claim its transaction ids, read its features.

Every command of a batch goes out in one write; what stands under an id that somebody has claimed
before, which is rare, is asked for in a second one. What Redis does not answer by the deadline counts
as timed out, view by view; after a few such batches the circuit breaker spares callers the wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from bentos.base.metrics import Metrics
from bentos.base.problem import Problem
from bentos.base.work import Work
from bentos.effects import outbox
from bentos.features.feature_plan import PlanRoom
from bentos.features.online_features import OnlineFeatures, OnlineRows
from bentos.once.memory import Memory
from bentos.wire.breaker import CircuitBreaker
from bentos.wire.redis_cluster import connection_to
from bentos.wire.redis_connection import RedisUnavailable, pack
from bentos.wire.replies import NO_REPLIES, Replies
from stores.settings import Settings

#: Redis's reply to a claim that was free.
_CLAIMED: Final = b"+OK\r\n"
#: A second question is given at least so long, whatever the first one took.
_LEAST_SECONDS: Final = 0.002


@dataclass(slots=True)
class Read:
    """What a read brought: the works that are still to be decided, their rows, and why the rows
    are not complete (None: they are). `unclaimed`: not every one of the works is claimed in Redis."""

    kept: list[Work]
    online: OnlineRows
    shortfall: str | None
    unclaimed: bool


class OnlineReader:
    """Reads for one worker. One event loop owns it."""

    def __init__(self, chosen: Settings, metrics: Metrics, memory: Memory) -> None:
        self._project = chosen.feast.project
        self._deadline = chosen.serve.feature_deadline_ms / 1000
        self._nonce = os.urandom(8)
        self._metrics = metrics
        self._memory = memory
        self._connection = connection_to(chosen.redis.url)
        self.plans = PlanRoom(chosen)
        self.breaker = CircuitBreaker(failures=3)

    async def claim_and_read(self, batch: list[Work]) -> Read:
        """Claim and read `batch`; works that were decided elsewhere are answered or refused here."""
        features, until = self.plans.features, self._until()  # one plan for the question and its answer
        commands: list[bytes] = []
        for work in batch:
            work.key = outbox.answer_key(self._project, work.transaction.transaction_id)
            commands.append(outbox.claim_command(work.key, outbox.claim_value(work.digest, self._nonce)))
        replies, shortfall = await self._ask(batch, features, commands)
        online, shortfall = await self._rows(batch, features, replies, len(batch), shortfall, until)
        places, unclaimed = await self._settle(batch, replies, until)
        if len(places) == len(batch):
            return Read(batch, online, shortfall, unclaimed)
        return Read([batch[place] for place in places], online.take(places), shortfall, unclaimed)

    async def read(self, batch: Sequence[Work]) -> tuple[OnlineRows, str | None]:
        """The rows of `batch` and why they are not complete; claims nothing."""
        features, until = self.plans.features, self._until()
        replies, shortfall = await self._ask(batch, features, [])
        return await self._rows(batch, features, replies, 0, shortfall, until)

    def _until(self) -> float:
        """When what is asked now has to be there."""
        return asyncio.get_running_loop().time() + self._deadline

    async def _ask(
        self, batch: Sequence[Work], features: OnlineFeatures, commands: list[bytes]
    ) -> tuple[Replies, str | None]:
        """The replies to `commands` and to the feature reads of `batch`, as far as they came."""
        if not self.breaker.allows():
            return NO_REPLIES, "features:breaker_open"
        commands += features.commands([work.transaction for work in batch])
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
        transactions, event_us = [work.transaction for work in batch], [work.event_us for work in batch]
        online = features.rows(transactions, event_us, replies, first)
        if online.again:
            self._metrics.count("profiles_read_again_total", by=len(online.again))
            commands = features.profile_commands(transactions, online)
            found = await self._ask_again(commands, until)
            features.complete(online, event_us, found)
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

    async def _settle(
        self, batch: Sequence[Work], replies: Replies, until: float
    ) -> tuple[Sequence[int], bool]:
        """Answer or refuse what others decided or are deciding; returns the places of the rest, and whether
        a claim of the rest is missing. The first of `replies` are those to the claims.
        """
        every = range(len(batch))
        if replies.data.startswith(_CLAIMED * len(batch)):
            return every, False
        # Those without a reply, be it for a node of the cluster that is away, are not asked for again.
        claims = [replies.raw(place) for place in every[: len(replies)]]
        unclaimed = len(claims) < len(batch) or b"" in claims
        taken = [place for place, reply in enumerate(claims) if reply and reply != _CLAIMED]
        gone = set()
        if taken:
            stored = await self._ask_again([pack(b"GET", batch[place].key) for place in taken], until)
            for place, value in zip_longest(taken, stored.objects()):
                # A claim that Redis refuses (no memory left, a replica) is none, but answers are known.
                if not isinstance(value, bytes):
                    unclaimed = True
                elif not self._mine(batch[place], value):
                    gone.add(place)
        return [place for place in every if place not in gone], unclaimed

    def _mine(self, work: Work, stored: bytes) -> bool:
        """Whether what stands under the work's key is this worker's own claim; if not, the work is
        answered or refused.
        """
        answered, digest, rest = outbox.split_value(stored)
        if answered or digest != work.digest:
            outcome = work.repeat(digest, rest)
            self._metrics.count("repeated_total", outcome)
            if outcome == "answered":
                self._memory.remember(work.transaction.transaction_id, digest, rest)
            return False
        if rest != self._nonce:
            work.refuse(Problem(503, "transaction_id", "is being decided right now", retry_after=1))
            return False
        return True

    async def close(self) -> None:
        await self.plans.close()
        self._connection.close()


def _refused(online: OnlineRows) -> str | None:
    """The shortfall when every reply came in time and some are errors: a server that is loading, a
    cluster that has lost slots.
    """
    return "features:refused" if online.unanswered else None
