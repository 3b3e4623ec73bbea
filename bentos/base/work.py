"""One transaction on its way to an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b

from msgspec.structs import force_setattr

from bentos.base.caller import LOCAL, Caller
from bentos.base.problem import Problem
from fraud.contract.money import reference_cents
from fraud.contract.transaction import Transaction, encode_transaction


class Work:
    """A valid transaction and the future of its answer: JSON bytes, or the `Problem` that refuses it.

    `arrived` is `perf_counter` when its request did; `digest` tells requests of one id apart. `tell`
    is called with the future as soon as it is done, a turn of the event loop before its callbacks.
    `measures` are the event time in milliseconds and the amount in minor units, where checking has
    computed them already. The transaction becomes this work's: from here on it has the id that the
    `caller`'s is called inside; the answer says `own_id`. `trace` is the mark that `Stages.request` gave.
    """

    __slots__ = (
        "amount_minor", "amount_reference", "arrived", "canonical", "client", "digest", "event_us", "future",
        "key", "own_id", "tell", "trace", "transaction",
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
        # Computed once: they are properties with exact decimal arithmetic behind them.
        event_ms, self.amount_minor = measures or (transaction.event_ms, transaction.amount_minor)
        self.event_us = event_ms * 1000
        self.amount_reference = reference_cents(self.amount_minor, transaction.currency)
        self.future = future
        self.tell: Callable[[asyncio.Future[bytes]], None] | None = None
        self.trace: object = None
        self.arrived = arrived

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
