"""A transaction as the event log carries it: the contract's fields, and behind them what the service knows
of its times, and what it decided.

`event_time` is the time that counts. What the caller stated stands behind it where it differs. Events
of other producers than the service have the contract's fields alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from fraud.contract.answer import Decision
from fraud.contract.transaction import (
    FUTURE_TOLERANCE_MS,
    LATEST_MS,
    ContractError,
    Transaction,
    encode_transaction,
    parse_measured,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: How the service's own fields begin, behind the last of the contract's.
_BEGIN: Final = b',"known_us":'
#: The service's fields are no longer than this.
_LONGEST: Final = 160


class EventTimes(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """`known_us` is when it was decided: what was known by then, and no more, had been seen (microseconds
    UTC). `lateness_ms` is how much later it counts than it happened, `stated_ms` the event time that the
    caller wrote where another one counts (milliseconds UTC). `decision` is the service's own, of the champion
    or canary and the rules: shadows decide nothing.
    """

    known_us: Annotated[int, Meta(ge=0, lt=LATEST_MS * 1000)]
    lateness_ms: Annotated[int, Meta(ge=0, lt=1 << 40)] = 0
    stated_ms: Annotated[int, Meta(ge=0, lt=LATEST_MS)] | None = None
    decision: Decision | None = None


_decode: Final[Callable[[bytes], EventTimes]] = msgspec.json.Decoder(EventTimes).decode
_encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode


def encode_event(
    transaction: Transaction, canonical: bytes, times: EventTimes, moved_ms: int | None = None
) -> bytes:
    """The event of a decided transaction, whose own JSON is `canonical`.

    `moved_ms` is the time that counts (milliseconds UTC), None where that is the transaction's.
    """
    if moved_ms is not None:
        counts = _EPOCH + timedelta(milliseconds=moved_ms)
        canonical = encode_transaction(msgspec.structs.replace(transaction, event_time=counts))
    return b"%b,%b" % (canonical[:-1], _encode(times)[1:])


def parse_event(
    raw: bytes, *, now_ms: int | None = None
) -> tuple[Transaction, int, int, bool, EventTimes | None]:
    """Decode and validate one event: as `parse_measured`, and the service's times if there are any."""
    times = None
    at = raw.rfind(_BEGIN, max(len(raw) - _LONGEST, 0))
    if at > 0:
        try:
            times = _decode(b"{" + raw[at + 1 :])
            raw = raw[:at] + b"}"
            if now_ms is not None and times.known_us > (now_ms + FUTURE_TOLERANCE_MS) * 1000:
                raise ContractError("known_us", "is more than 5 minutes in the future")
        except msgspec.MsgspecError:  # another producer's field of that name: the contract has its say
            times = None
    return *parse_measured(raw, now_ms=now_ms), times
