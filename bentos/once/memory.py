"""What this worker decided lately and is deciding now, by transaction id.

Redis remembers answers for 24 hours and for every worker; this holds the newest ones for when
Redis is away, and joins a repeated request to the one that is under way.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

_NEWEST: Final = 20_000


class Memory:
    """Answers and requests under way. One event loop owns it."""

    def __init__(self, newest: int = _NEWEST) -> None:
        self._newest = newest
        self._answers: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()
        self._under_way: dict[str, tuple[bytes, asyncio.Future[bytes]]] = {}

    def answer(self, transaction_id: str) -> tuple[bytes, bytes] | None:
        """Digest of the request and the answer's JSON, if it is among the newest."""
        return self._answers.get(transaction_id)

    def under_way(self, transaction_id: str) -> tuple[bytes, asyncio.Future[bytes]] | None:
        """Digest and future answer of the request that is being decided."""
        return self._under_way.get(transaction_id)

    def begin(self, transaction_id: str, digest: bytes, future: asyncio.Future[bytes]) -> None:
        self._under_way[transaction_id] = (digest, future)

    def finished(self, transaction_id: str) -> None:
        self._under_way.pop(transaction_id, None)

    def remember(self, transaction_id: str, digest: bytes, answer: bytes) -> None:
        answers = self._answers
        answers[transaction_id] = (digest, answer)
        if len(answers) > self._newest:
            answers.popitem(last=False)
