"""How a transaction id is decided once: by this worker, by all of them, with Redis and without.

    join ──► claims ══ round trip ══► settle ──► siblings ══ turn ══► publish
     │                                  │            │
     └ known here, or under way         └ in Redis   └ of this machine, while Redis cannot tell

`join` answers what this worker has decided lately or joins it to the request that is under way.
`claims` are commands for the batch's one round trip to Redis; `settle` reads what came of them.
While Redis is away, or does not know yet what was decided without it, a batch is decided in the
machine's `turn`, one worker at a time. `publish` lets everybody know before an answer leaves.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from types import TracebackType
from typing import Final

from bentos.base.metrics import Metrics
from bentos.base.problem import Problem
from bentos.base.work import Work, conflict
from bentos.once.claims import (
    Stored,
    answer_key,
    answer_value,
    claim_command,
    claim_value,
    read_value,
    take_over_command,
)
from bentos.once.memory import Memory
from bentos.once.shared_answers import SharedAnswers, open_shared
from bentos.wire.redis_connection import pack
from bentos.wire.replies import NO_REPLIES, Replies
from stores.keys import Seal
from stores.run_folder import open_run_folder
from stores.settings import Settings

_log = logging.getLogger("tollgate.scoring")
#: Redis's reply to a claim that was free.
_CLAIMED: Final = b"+OK\r\n"
#: What an answer says that other workers of the machine may contradict.
_THIS_WORKER: Final = "idempotency:this_worker"

#: Sends a second question to Redis, within what is left of the deadline.
Ask = Callable[[list[bytes]], Awaitable[Replies]]


@dataclass(frozen=True, slots=True)
class Claimed:
    """What came of a batch's claims: the works `to_decide`, and their `places` in the batch.

    The others were decided elsewhere, and are answered or refused. `everywhere`: Redis holds a claim
    for each of those that are left.
    """

    to_decide: Sequence[Work]
    places: Sequence[int]
    everywhere: bool


class Once:
    """What one worker knows about who decides, or has decided, an id. One event loop owns it."""

    def __init__(self, chosen: Settings, metrics: Metrics, seal: Seal) -> None:
        self._project = chosen.feast.project
        self._metrics = metrics
        self._seal = seal
        for what in ("answer", "sibling", "effect"):  # so that the first one is an increase
            metrics.count("unverified_total", what, by=0)
        self._nonce = os.urandom(8)
        self._memory = Memory()
        self._siblings = open_shared(open_run_folder(chosen.run), chosen.serve.workers, seal, metrics)

    # -- before a batch ----------------------------------------------------------------------

    def join(self, work: Work) -> asyncio.Future[bytes] | None:
        """The answer to a work that is known or under way in this worker, None for a new one.

        Raises `Problem` 409 for another body under the same id.
        """
        memory, name = self._memory, work.transaction.transaction_id
        known = memory.answer(name)
        if known is not None:
            self._same(work, known[0])
            self._metrics.count("repeated_total", "answered")
            work.answer(known[1])
            return work.future
        under_way = memory.under_way(name)
        if under_way is None:
            return None
        self._same(work, under_way[0])
        joined = asyncio.shield(under_way[1])  # one caller's leaving must not cancel the other's
        if work.tell is not None:
            joined.add_done_callback(work.tell)
        return joined

    def _same(self, work: Work, digest: bytes) -> None:
        if work.digest != digest:
            self._metrics.count("repeated_total", "conflict")
            raise conflict()

    def begin(self, work: Work) -> None:
        """`work` is queued: who repeats it joins it, until it is `finished`."""
        self._memory.begin(work.transaction.transaction_id, work.digest, work.future)

    def finished(self, work: Work) -> None:
        """`work` was answered or refused."""
        self._memory.finished(work.transaction.transaction_id)

    # -- the claim, in the round trip that reads the features ------------------------------------

    def claims(self, batch: Sequence[Work]) -> list[bytes]:
        """One command a work, which claims its id in Redis unless somebody has."""
        commands = []
        for work in batch:
            work.key = answer_key(self._project, work.transaction.transaction_id)
            commands.append(claim_command(work.key, self._claim(work)))
        return commands

    def _claim(self, work: Work) -> bytes:
        return claim_value(self._seal, work.key, work.digest, self._nonce)

    async def settle(self, batch: Sequence[Work], replies: Replies, ask: Ask) -> Claimed:
        """Answer or refuse what others decided or are deciding.

        The first of `replies` are those to `claims`. What stands under an id that somebody has claimed
        before, which is rare, is asked for with `ask`.
        """
        every = range(len(batch))
        if replies.data.startswith(_CLAIMED * len(batch)):
            return Claimed(batch, every, True)
        # Those without a reply, be it for a node of the cluster that is away, are not asked for again.
        claims = [replies.raw(place) for place in every[: len(replies)]]
        everywhere = len(claims) == len(batch) and b"" not in claims
        taken = [place for place, reply in enumerate(claims) if reply and reply != _CLAIMED]
        found = await ask([pack(b"GET", batch[place].key) for place in taken]) if taken else NO_REPLIES
        gone, planted = set(), {}
        for place, value in zip_longest(taken, found.objects()):
            work = batch[place]
            # What is no string was planted; any other error is Redis's own (no memory left, a replica): a
            # claim that it refuses is none, but answers are known.
            stored = read_value(self._seal, work.key, value) if isinstance(value, bytes) else None
            if stored is not None:
                if not self._mine(work, stored):
                    gone.add(place)
            elif isinstance(value, bytes) or str(value).startswith("WRONGTYPE"):
                planted[place] = value if isinstance(value, bytes) else b""
            else:
                everywhere = False
        if planted:
            lost, proven = await self._take_over(batch, planted, ask)
            gone |= lost
            everywhere = everywhere and proven
        places = [place for place in every if place not in gone]
        return Claimed([batch[place] for place in places], places, everywhere)

    def _mine(self, work: Work, stored: Stored) -> bool:
        """Whether what stands under the work's key is this worker's own claim; if not, the work is
        answered or refused.
        """
        if stored.answered or stored.digest != work.digest:
            outcome = work.repeat(stored.digest, stored.rest)
            self._metrics.count("repeated_total", outcome)
            if outcome == "answered":
                self._memory.remember(work.transaction.transaction_id, stored.digest, stored.rest)
            return False
        if stored.rest != self._nonce:
            work.refuse(_being_decided())
            return False
        return True

    async def _take_over(
        self, batch: Sequence[Work], planted: Mapping[int, bytes], ask: Ask
    ) -> tuple[set[int], bool]:
        """Claim in the place of values that nobody of ours wrote. Returns the places of works that another
        worker was quicker to take over, which are refused, and whether Redis holds a claim for the rest.
        """
        self._metrics.count("unverified_total", "answer", by=len(planted))
        _log.error(
            "values in Redis do not verify and were put aside: somebody else writes there, or hosts have "
            "different keys",
            extra={"values": len(planted)},
        )
        replies = await ask(
            [take_over_command(batch[at].key, value, self._claim(batch[at])) for at, value in planted.items()]
        )
        lost, proven = set(), True
        for place, reply in zip_longest(planted, replies.objects()):
            if reply == 0:
                batch[place].refuse(_being_decided())
                lost.add(place)
            elif reply != 1:
                proven = False
        return lost, proven

    # -- while Redis cannot tell -----------------------------------------------------------------

    async def turn(self, claimed: Claimed) -> Turn:
        """What to decide within: ``with await once.turn(claimed) as turn``, without an await inside.

        While claims prove something, that is everything, at once.
        """
        siblings = self._siblings
        if siblings is None or (claimed.everywhere and not siblings.owing.anybody):
            return Turn(claimed.to_decide)
        await siblings.catch_up()
        if not claimed.everywhere:
            siblings.owing.owe()  # before the last look at what the others have done
        return _MachinesTurn(claimed.to_decide, siblings, self._memory)

    # -- afterwards ------------------------------------------------------------------------------

    def value(self, work: Work, answer: bytes) -> bytes:
        """What Redis is to remember under the work's key."""
        return answer_value(self._seal, work.key, work.digest, answer)

    def publish(
        self, batch: Sequence[Work], answers: Sequence[bytes], values: Sequence[bytes], *, sent: bool
    ) -> None:
        """Answer `batch`, having let everybody know; `values` as `value` makes them, `sent`: they are on
        their way to Redis.
        """
        siblings = self._siblings
        if siblings is not None:
            if not sent:
                siblings.owing.owe()
            siblings.publish(batch, values)
        for work, answer in zip(batch, answers, strict=True):
            self._memory.remember(work.transaction.transaction_id, work.digest, answer)
            work.answer(answer)

    # -- around the batches ------------------------------------------------------------------------

    def start(self, *, owes: bool) -> None:
        """`owes`: whether answers of a predecessor still wait for Redis."""
        if self._siblings is not None and owes:
            self._siblings.owing.owe()

    def tick(self, *, owes: bool) -> None:
        """Once a second; `owes`: whether answers of this worker still wait for Redis."""
        if self._siblings is not None:
            self._siblings.tick(owes)

    @property
    def owed(self) -> bool:
        """Whether any worker of this machine holds answers that Redis may not know."""
        return self._siblings is not None and self._siblings.owing.anybody

    def close(self, *, owes: bool) -> None:
        """Leave what the next worker should know, and the debt with it."""
        if self._siblings is not None:
            self._siblings.close(owes)


def _being_decided() -> Problem:
    return Problem(503, "transaction_id", "is being decided right now", retry_after=1)


class Turn:
    """What may be decided now: of the works that were claimed those at `places`.

    `shortfall` is what their answers should say, if anything.
    """

    __slots__ = ("places", "shortfall", "works")

    def __init__(self, works: Sequence[Work]) -> None:
        self.works = works
        self.places: Sequence[int] = range(len(works))
        self.shortfall: str | None = None

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class _MachinesTurn(Turn):
    """One worker of the machine at a time; what the others have decided is answered or refused."""

    __slots__ = ("_memory", "_siblings", "_turn")

    def __init__(self, works: Sequence[Work], siblings: SharedAnswers, memory: Memory) -> None:
        super().__init__(works)
        self._siblings = siblings
        self._memory = memory
        self._turn = siblings.turn()

    def __enter__(self) -> Turn:
        if not self._turn.__enter__():
            self.shortfall = _THIS_WORKER
        self.places = self._siblings.undecided(self.works, self._memory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn.__exit__(kind, error, trace)
