"""One transaction on its way to an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from msgspec.structs import force_setattr

from bentos.base.caller import LOCAL, Caller
from bentos.base.problem import Problem
from fraud.contract.answer import Decision
from fraud.contract.event import EventTimes, encode_event
from fraud.contract.money import reference_cents
from fraud.contract.times import EventTime
from fraud.contract.transaction import Transaction, encode_transaction
from fraud.state.observation import transaction_key


class Asked(NamedTuple):
    """A request to decide a valid transaction, with what checking it has computed: the stated event time
    in milliseconds, the amount in minor units, and the time that counts. `received_us` is the wall
    clock's microseconds, UTC."""

    transaction: Transaction
    stated_ms: int
    amount_minor: int
    time: EventTime
    caller: Caller
    received_us: int


class Work:
    """A valid transaction and the future of its answer: JSON bytes, or the `Problem` that refuses it.

    `arrived` is `perf_counter` when its request did; `digest` tells requests of one id apart. `tell`
    is called with the future as soon as it is done, a turn of the event loop before its callbacks.
    `measures` are the event time in milliseconds and the amount in minor units, where checking has
    computed them already. The transaction becomes this work's: from here on it has the id that the
    `caller`'s is called inside; the answer says `own_id`. `trace` is the mark that `Stages.request` gave.

    `event_ms` is the event time that counts, `lateness_ms` how much later that is than it happened;
    what is known by `known_us` has been seen. Without an `asked` the stated time counts, as in a replay.
    """

    __slots__ = (
        "amount_minor", "amount_reference", "arrived", "asked", "canonical", "client", "digest", "entry",
        "event_ms", "future", "identity", "key", "known_us", "lateness_ms", "overlaid", "own_id", "stated_ms",
        "tell", "trace", "transaction",
    )  # fmt: skip

    def __init__(
        self,
        transaction: Transaction,
        future: asyncio.Future[bytes],
        arrived: float,
        measures: tuple[int, int] | None = None,
        caller: Caller = LOCAL,
    ) -> None:
        self.client = caller.name
        self.own_id = own = transaction.transaction_id
        inside = caller.inside(own)
        if inside is not own:
            force_setattr(transaction, "transaction_id", inside)
        self.transaction = transaction
        self.canonical = encode_transaction(transaction)
        self.digest = blake2b(self.canonical, digest_size=16).digest()
        self.key = b""
        #: What tells its event from others in velocity states.
        self.identity = transaction_key(transaction.transaction_id)
        # Computed once: they are properties with exact decimal arithmetic behind them.
        self.stated_ms, self.amount_minor = measures or (transaction.event_ms, transaction.amount_minor)
        self.event_ms = self.stated_ms
        self.lateness_ms = 0
        #: What tells others of it while the stream has not counted it (`bentos.features.recent_events`), and
        #: when those were known that it was told of so.
        self.entry = b""
        self.overlaid: tuple[int, ...] = ()
        self.known_us = self.stated_ms * 1000
        self.asked: Asked | None = None
        self.amount_reference = reference_cents(self.amount_minor, transaction.currency)
        self.future = future
        self.tell: Callable[[asyncio.Future[bytes]], None] | None = None
        self.trace: object = None
        self.arrived = arrived

    @classmethod
    def of(cls, asked: Asked, future: asyncio.Future[bytes], arrived: float) -> Work:
        """The work of a request."""
        work = cls(asked.transaction, future, arrived, (asked.stated_ms, asked.amount_minor), asked.caller)
        work.event_ms, work.asked = asked.time.event_ms, asked
        return work

    @property
    def replayed(self) -> bool:
        return self.asked is None or self.asked.caller.replays

    @property
    def lateness_seconds(self) -> float:
        """How long after its stated time it was received: below 0 if a clock runs ahead, 0 in a replay."""
        asked = self.asked
        if asked is None or asked.caller.replays:
            return 0.0
        return (asked.received_us - 1000 * asked.stated_ms) / 1e6

    def event(self, decision: Decision) -> bytes:
        """What goes to the event log once it is decided."""
        moved_ms = self.event_ms if self.event_ms != self.stated_ms else None
        stated_ms = None if moved_ms is None else self.stated_ms
        times = EventTimes(self.known_us, self.lateness_ms, stated_ms, decision)
        return encode_event(self.transaction, self.canonical, times, moved_ms)

    def answer(self, result: bytes) -> None:
        if not self.future.done():
            self.future.set_result(result)
            if self.tell is not None:
                self.tell(self.future)

    def repeat(self, digest: bytes, answer: bytes) -> str:
        """Give the answer to the request of `digest`, which was decided under the same id, or refuse
        another body; say which of the two.
        """
        if digest != self.digest:
            self.refuse(conflict())
            return "conflict"
        self.answer(answer)
        return "answered"

    def refuse(self, problem: Problem) -> None:
        if not self.future.done():
            self.future.set_exception(problem)
            if self.tell is not None:
                self.tell(self.future)


def conflict() -> Problem:
    """The answer to another body under an id that was decided."""
    return Problem(409, "transaction_id", "was decided before with another body")
