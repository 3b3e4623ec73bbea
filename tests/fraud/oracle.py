"""The reference aggregator: every window feature from the raw observations, slowly and obviously.

It keeps all that arrived, in a list, and answers each question by going through the list.
Nothing here is shared with the state that it is held against, but the names of the windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fraud.features.entities import ENTITIES, WINDOWS
from fraud.state.observation import Observation

DAY_MS = 86_400_000
TTL_MS = 30 * DAY_MS
LATENESS_MS = 2 * 3_600_000


@dataclass(frozen=True)
class Event:
    """One arrival, as far as this entity is concerned."""

    event_ms: int
    amount: int
    tracked: tuple[int, ...]
    location: int | None
    transaction_key: int


@dataclass(frozen=True)
class Answer:
    """What the oracle says of one entity at one time: lists are by window, then by table."""

    present: bool
    count: list[int]
    total: list[int]
    squares: list[int]
    distinct: list[list[int]]
    seen: list[bool]
    since_last: float
    since_first: float
    location: int | None
    located_ms: float


class Oracle:
    """All observations of one entity, in order of arrival."""

    def __init__(self, place: int) -> None:
        self.entity = ENTITIES[place]
        self.place = place
        self.arrived: list[Event] = []
        self._known: set[tuple[int, int]] = set()
        self._newest_ms = 0

    def add(self, seen: Observation) -> None:
        """Remember `seen`, unless the same transaction has arrived before."""
        identity = (seen.transaction_key, seen.event_ms)
        if identity not in self._known:
            if self.arrived and seen.event_ms - self._newest_ms > TTL_MS:
                self.arrived.clear()  # a read here found nothing: the entity starts anew
            self._newest_ms = max(self._newest_ms, seen.event_ms)
            self._known.add(identity)
            self.arrived.append(
                Event(
                    seen.event_ms, seen.amount, seen.tracked[self.place], seen.location, seen.transaction_key
                )
            )

    def version(self) -> int:
        """Microseconds UTC at which the newest update became known, strictly increasing."""
        version = 0
        for seen in self.arrived:
            version = max(seen.event_ms * 1000 + 1, version + 1)
        return version

    def read(self, at_ms: int, requested: Sequence[int], horizon_ms: int, own: int | None = None) -> Answer:
        """Every feature to the transaction of `at_ms`, over windows that end there, or just after the newest
        arrival that is no earlier and not more than two hours later; `own` is the transaction's identity."""
        asked_ms = at_ms
        later = [
            seen.event_ms
            for seen in self.arrived
            if at_ms <= seen.event_ms <= at_ms + LATENESS_MS and seen.transaction_key != own
        ]
        at_ms = max([at_ms, *[time + 1 for time in later]])
        past = [seen for seen in self.arrived if seen.event_ms < at_ms]
        in_window = [
            [seen for seen in past if seen.event_ms >= at_ms - window.milliseconds] for window in WINDOWS
        ]
        times = [seen.event_ms for seen in past]
        located = [
            (seen.event_ms, seen.location)
            for seen in past
            if self.entity.located and seen.location is not None
        ]
        tables = range(len(self.entity.tracked))
        return Answer(
            present=bool(self.arrived) and self.version() >= (asked_ms - horizon_ms) * 1000,
            count=[len(window) for window in in_window],
            total=[sum(seen.amount for seen in window) for window in in_window],
            squares=[sum(seen.amount**2 for seen in window) for window in in_window],
            distinct=[
                [len({seen.tracked[table] for seen in window} - {0}) for window in in_window]
                for table in tables
            ],
            seen=[self._seen(past, table, at_ms, requested[table]) for table in tables],
            since_last=max(asked_ms - max(times), 0) / 1000 if times else math.nan,
            since_first=max(asked_ms - min(times), 0) / 1000 if times else math.nan,
            location=max(located)[1] if located else None,
            located_ms=max(located)[0] if located else math.nan,
        )

    def _seen(self, past: list[Event], table: int, at_ms: int, key: int) -> bool:
        days = 1 if table < len(self.entity.counterparties) else 30
        return key != 0 and any(
            seen.tracked[table] == key and seen.event_ms >= at_ms - days * DAY_MS for seen in past
        )
