"""What is sent and answered, as small frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

Channel = Literal["pos", "ecom", "atm", "moto", "transfer"]
Source = Literal["chargeback", "issuer", "analyst", "customer", "automatic"]
Kind = Literal["declined", "reversed", "refunded", "captured", "incremental", "disputed", "dispute_won"]
Attributes = Mapping[str, str | bool | float | None]


@dataclass(frozen=True, slots=True)
class Payment:
    """One transaction to decide; the fields are those of the API (docs/clients.md).

    `amount` is exact: a Decimal, a string or a whole number. A float is a TypeError, for 0.1 + 0.2 is none.
    `event_time` carries its zone; a naive one is a ValueError.
    """

    transaction_id: str
    event_time: datetime
    customer_id: str
    card_id: str
    merchant_id: str
    amount: Decimal | str | int
    currency: str
    channel: Channel
    terminal_id: str | None = None
    device_id: str | None = None
    ip: str | None = None
    merchant_category: str | None = None
    country: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    attributes: Attributes | None = None

    def __post_init__(self) -> None:
        _exact(self.amount)
        _aware(self.event_time, "event_time")

    def body(self) -> dict[str, Any]:
        """The JSON object that the API takes."""
        made = _present(self)
        made["amount"] = _decimal(self.amount)
        if self.attributes is not None:
            made["attributes"] = dict(self.attributes)
        return made


@dataclass(frozen=True, slots=True)
class Label:
    """What became known of a transaction: `event_time` is the transaction's, `known_at` when it was known
    (the service's clock without it)."""

    transaction_id: str
    event_time: datetime
    is_fraud: bool
    source: Source
    known_at: datetime | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        _aware(self.event_time, "event_time")
        _aware(self.known_at, "known_at")

    def body(self) -> dict[str, Any]:
        """The JSON object that the API takes."""
        return _present(self)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a payment. Without an `amount` (and its `currency`) the whole of it; `outcome_id` tells
    several of one kind and payment apart, such as two refunds. `event_time` is the payment's."""

    transaction_id: str
    kind: Kind
    outcome_id: str | None = None
    amount: Decimal | str | int | None = None
    currency: str | None = None
    reason: str | None = None
    event_time: datetime | None = None
    known_at: datetime | None = None

    def __post_init__(self) -> None:
        _exact(self.amount)
        _aware(self.event_time, "event_time")
        _aware(self.known_at, "known_at")

    def body(self) -> dict[str, Any]:
        """The JSON object that the API takes."""
        made = _present(self)
        if self.amount is not None:
            made["amount"] = _decimal(self.amount)
        return made


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one payment. `degraded` says what it had to do without; `fraud_score` is None where no
    model answered. What a newer service adds is ignored."""

    transaction_id: str
    decision: Literal["APPROVE", "REVIEW", "BLOCK"]
    fraud_score: float | None = None
    risk_factors: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    model_version: str | None = None
    variant: str = ""
    feature_status: Mapping[str, str] = field(default_factory=dict)
    latency_ms: float = 0.0

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Decision:
        """From the JSON object that the API answers."""
        known = {each.name: body[each.name] for each in fields(cls) if each.name in body}
        for name in ("risk_factors", "rules", "degraded"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


def _present(message: Payment | Label | Outcome) -> dict[str, Any]:
    made = {each.name: getattr(message, each.name) for each in fields(message)}
    return {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in made.items()
        if value is not None
    }


def _aware(moment: datetime | None, name: str) -> None:
    if moment is not None and moment.utcoffset() is None:
        raise ValueError(f"{name} should carry its zone, such as tzinfo=UTC")


def _exact(amount: object) -> None:
    if isinstance(amount, float | bool):
        raise TypeError("amount should be a Decimal, a string or a whole number, never a float")


def _decimal(amount: Decimal | str | int) -> str:
    return f"{amount:f}" if isinstance(amount, Decimal) else str(amount)
