"""What became of payments, from issuers, acquirers and terminals: on disk before it is acknowledged.

An outcome is stamped with when it became known and with the client that sent it, whose id space its
transaction is looked for in. `jobs.outcomes` finds the payment, works out what counts as spent, and tells
the stream and the lake. What kinds do is said in `stores.outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from bentos.log.labels import (
    EARLIEST,
    KNOWN_WITHIN,
    LARGEST_BATCH,
    LATEST_AHEAD,
    Reporter,
    ReportStore,
    inside,
    utc,
)
from fraud.contract.canonical import refuse_repeated_keys
from fraud.contract.cards import looks_like_card_number, redact
from fraud.contract.money import MINOR_DIGITS, minor_units
from fraud.contract.transaction import ContractError, TransactionId, canonical_id, canonical_time
from stores.outcomes import KINDS, OUTCOMES, PARTIAL, Kind

#: File of how many outcomes wait for their payment, and how many went aside.
SUMMARY: Final = "waiting.json"
_LARGEST: Final = Decimal(10) ** 12
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}\Z")]


class Outcome(Struct, frozen=True, forbid_unknown_fields=True):
    """One report. `outcome_id` tells outcomes of one kind and transaction apart, such as two refunds.

    Without `amount` it is of the whole. `event_time` is the transaction's, as far as the sender knows it.
    """

    transaction_id: TransactionId
    kind: Kind
    outcome_id: _Name | None = None
    amount: Decimal | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")] | None = None
    reason: _Name | None = None
    event_time: Annotated[datetime, Meta(tz=True)] | None = None
    known_at: Annotated[datetime, Meta(tz=True)] | None = None


class KeptOutcome(Struct, frozen=True):
    """An outcome as it is kept: times in UTC, the amount in minor units, and the client that sent it."""

    transaction_id: str
    kind: str
    outcome_id: str
    amount_minor: int | None
    currency: str | None
    reason: str | None
    event_time: datetime | None
    known_at: datetime
    client: str

    @property
    def key(self) -> str:
        """What makes it the same outcome when it comes again."""
        return f"{self.transaction_id} {self.kind} {self.outcome_id}"


_EXPECTED: Final = {
    "transaction_id": "a string of 1 to 64 characters",
    "kind": "one of " + ", ".join(KINDS),
    "outcome_id": "1 to 64 letters, digits and . _ : / -, or absent",
    "amount": "a decimal number above 0, or absent for the whole",
    "currency": "three capital letters, beside an amount",
    "reason": "a code of 1 to 64 letters, digits and . _ : / -, or absent",
    "event_time": "the transaction's RFC 3339 time with an offset, or absent",
    "known_at": "an RFC 3339 time with an offset, or absent",
}
_decode: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(list[Outcome] | Outcome).decode


def parse_outcomes(raw: bytes, now: datetime, reporter: Reporter) -> list[KeptOutcome]:
    """One outcome or a list of up to `LARGEST_BATCH`, each stamped; raise `ContractError`.

    `now` (UTC) is the receiver's clock.
    """
    try:
        decoded = _decode(raw)
        refuse_repeated_keys(raw)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ContractError("(body)", "is not valid JSON") from None
    outcomes = decoded if isinstance(decoded, list) else [decoded]
    if not 1 <= len(outcomes) <= LARGEST_BATCH:
        raise ContractError("(body)", f"should hold 1 to {LARGEST_BATCH} outcomes")
    return [_stamped(outcome, now, reporter) for outcome in outcomes]


def _stamped(outcome: Outcome, now: datetime, reporter: Reporter) -> KeptOutcome:
    name = canonical_id(outcome.transaction_id)
    for field, text in (("outcome_id", outcome.outcome_id), ("reason", outcome.reason)):
        if text is not None and looks_like_card_number(text):
            raise ContractError(field, "looks like a card number; send a token instead")
    event = None if outcome.event_time is None else canonical_time(utc(outcome.event_time, "event_time"))
    known = now if outcome.known_at is None else utc(outcome.known_at, "known_at")
    if event is not None and not EARLIEST <= event <= now + LATEST_AHEAD + timedelta(days=1):
        raise ContractError("event_time", f"should lie between {EARLIEST:%Y} and now")
    if known > now:
        raise ContractError("known_at", "is in the future")
    if known < now - KNOWN_WITHIN and not reporter.admin:
        raise ContractError("known_at", "lies more than an hour back, which takes the scope admin")
    return KeptOutcome(
        inside(name, reporter.ids), outcome.kind, outcome.outcome_id or outcome.kind, _minor(outcome),
        outcome.currency, outcome.reason, event, known, reporter.name,
    )  # fmt: skip


def _minor(outcome: Outcome) -> int | None:
    amount, currency = outcome.amount, outcome.currency
    if amount is None:
        if currency is not None:
            raise ContractError("currency", "stands without an amount")
        if outcome.kind == "incremental":
            raise ContractError("amount", "is missing: by how much?")
        return None
    if outcome.kind not in PARTIAL and outcome.kind != "incremental":
        raise ContractError("amount", f"is not said of {outcome.kind}, which is of the whole")
    if currency is None:
        raise ContractError("currency", "is missing beside the amount")
    if currency not in MINOR_DIGITS:
        raise ContractError("currency", "is no currency of ISO 4217")
    if not amount.is_finite() or not 0 < amount <= _LARGEST:
        raise ContractError("amount", f"should be {_EXPECTED['amount']}")
    try:
        return minor_units(amount, currency)
    except ValueError:
        raise ContractError("amount", f"has more decimals than {currency}") from None


def _refusal(message: str) -> ContractError:
    for name, expected in _EXPECTED.items():
        if f"`{name}`" in message or f".{name}`" in message:
            return ContractError(name, f"should be {expected}")
    if "unknown field" in message:
        name = message.partition("`")[2].partition("`")[0]
        return ContractError(redact(name)[:64], "is not a field of an outcome")
    return ContractError("(body)", "should be one outcome or a list of outcomes")


def outcomes_folder(home: Path) -> Path:
    """Where outcomes wait for their payments."""
    return home / OUTCOMES


class OutcomeStore(ReportStore):
    """Takes outcomes; `jobs.outcomes` finds their payments."""

    def __init__(self, home: Path) -> None:
        super().__init__(outcomes_folder(home), OUTCOMES)
