"""Which time of a transaction counts: the one its caller states, as far as it can be believed.

    stated    2001 ....... | now - late ......... now | now + early .......
    counts    at receipt   |      as stated          now    at receipt
    said as   late_event   |                           early_event

A clock that runs ahead is put back to the receipt: nothing happens after it is known. What is later
than allowed counts when it was received, so that no caller moves payments out of the windows that
look at them. In a replay the stated time counts, whatever the clock says.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fraud.contract.transaction import FUTURE_TOLERANCE_MS, ContractError

LATE: Final = "late_event"
EARLY: Final = "early_event"


class EventTime(NamedTuple):
    """The event time that counts, in UTC milliseconds, and what is to be said about it, if anything."""

    event_ms: int
    remark: str | None = None


def event_time(stated_ms: int, now_ms: int, late_ms: int, *, refuse: bool = False) -> EventTime:
    """The time that counts of a transaction received at `now_ms` that may be `late_ms` old.

    With `refuse` one whose clock is off is a `ContractError` instead.
    """
    if now_ms - late_ms <= stated_ms <= now_ms:
        return EventTime(stated_ms)
    if now_ms < stated_ms <= now_ms + FUTURE_TOLERANCE_MS:
        return EventTime(now_ms)
    if refuse:
        raise ContractError("event_time", _off(stated_ms > now_ms, late_ms))
    return EventTime(now_ms, EARLY if stated_ms > now_ms else LATE)


def replayed_time(stated_ms: int, now_ms: int) -> EventTime:
    """The time that counts of a transaction that is replayed; `ContractError` for the future."""
    if stated_ms > now_ms + FUTURE_TOLERANCE_MS:
        raise ContractError("event_time", _off(True, 0))
    return EventTime(stated_ms)


def _off(early: bool, late_ms: int) -> str:
    if early:
        return f"is more than {_span(FUTURE_TOLERANCE_MS)} in the future"
    return f"is more than {_span(late_ms)} old; backfills need the scope replay"


def _span(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{milliseconds / 1000:g} seconds" if rest or not minutes else f"{minutes} minutes"
