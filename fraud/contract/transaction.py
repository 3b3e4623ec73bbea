"""The contract: one card transaction as clients, the event log and the lake know it.

`parse_transaction` is the only door. It returns a valid `Transaction` or raises a
`ContractError` that names the field and says what it should be, without repeating the input.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from fraud.contract.cards import looks_like_card_number, may_hold_card_number, redact
from fraud.contract.money import MINOR_DIGITS, minor_units, reference_cents

Channel = Literal["pos", "ecom", "atm", "moto", "transfer"]
CHANNELS: Final[tuple[str, ...]] = get_args(Channel)

Identifier = Annotated[str, Meta(min_length=1, max_length=64)]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EARLIEST_MS: Final = 946_684_800_000  # 2000-01-01: anything before is a broken clock
#: How far ahead of the receiver's clock an event may claim to be.
FUTURE_TOLERANCE_MS: Final = 300_000
#: Largest amount accepted, in minor units.
LARGEST_AMOUNT: Final = 10**12
LARGEST_BODY: Final = 16_384


class ContractError(ValueError):
    """An input that breaks the contract: `field` names what, `reason` says how to mend it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Transaction(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One card transaction. Times are UTC after parsing; `amount` is exact.

    `card_id` is a token, never a card number. Optional fields may be absent or null, and
    scoring still works without them.
    """

    transaction_id: Identifier
    event_time: Annotated[datetime, Meta(tz=True)]
    customer_id: Identifier
    card_id: Identifier
    merchant_id: Identifier
    amount: Decimal
    currency: str
    channel: Channel
    terminal_id: Identifier | None = None
    device_id: Identifier | None = None
    ip: Identifier | None = None
    merchant_category: Identifier | None = None
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}\Z")] | None = None
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None

    @property
    def event_ms(self) -> int:
        """Event time as whole milliseconds since 1970 UTC (finer digits are cut off)."""
        return (self.event_time - _EPOCH) // _MILLISECOND

    @property
    def amount_minor(self) -> int:
        """The amount in minor units of its currency."""
        return minor_units(self.amount, self.currency)

    @property
    def amount_reference(self) -> int:
        """The amount in reference cents, the unit of every amount feature."""
        return reference_cents(self.amount_minor, self.currency)


#: What each field should be, for errors.
EXPECTED: Final[dict[str, str]] = {
    "transaction_id": "a string of 1 to 64 characters",
    "event_time": "an RFC 3339 time with an offset, such as 2026-03-01T12:00:00.250Z",
    "customer_id": "a string of 1 to 64 characters",
    "card_id": "a card token of 1 to 64 characters, never a card number",
    "merchant_id": "a string of 1 to 64 characters",
    "amount": 'a decimal of at least 0, as a string or a number, such as "12.34"',
    "currency": "an ISO 4217 code that is configured, such as EUR",
    "channel": "one of " + ", ".join(CHANNELS),
    "terminal_id": "a string of 1 to 64 characters, or absent",
    "device_id": "a string of 1 to 64 characters, or absent",
    "ip": "a string of 1 to 64 characters, or absent",
    "merchant_category": "a string of 1 to 64 characters, or absent",
    "country": "an ISO 3166 alpha-2 code in capitals, or absent",
    "latitude": "degrees between -90 and 90, or absent",
    "longitude": "degrees between -180 and 180, or absent",
}
FIELDS: Final = tuple(EXPECTED)
_TEXT_FIELDS: Final = (
    "transaction_id", "customer_id", "card_id", "merchant_id", "currency", "terminal_id",
    "device_id", "ip", "merchant_category",
)  # fmt: skip

_PATH = re.compile(r"`\$\.?([^`]*)`\s*$")
_FIELD_IN_MESSAGE = re.compile(r"field `(.*?)`", re.DOTALL)

_decode: Final[Callable[[bytes], Transaction]] = msgspec.json.Decoder(Transaction).decode
encode_transaction: Final[Callable[[Transaction], bytes]] = msgspec.json.Encoder(
    decimal_format="string"
).encode


def parse_transaction(raw: bytes, *, now_ms: int | None = None) -> Transaction:
    """Decode and validate one JSON transaction.

    `now_ms` is the receiver's clock (milliseconds, UTC); with it, an event more than
    `FUTURE_TOLERANCE_MS` ahead is refused. Raises `ContractError`.
    """
    return parse_measured(raw, now_ms=now_ms)[0]


def parse_measured(raw: bytes, *, now_ms: int | None = None) -> tuple[Transaction, int, int]:
    """As `parse_transaction`, with what checking has computed: event time in whole milliseconds and
    the amount in minor units."""
    if len(raw) > LARGEST_BODY:
        raise ContractError("(body)", f"larger than {LARGEST_BODY} bytes")
    try:
        transaction = _decode(raw)
    except msgspec.ValidationError as error:
        raise contract_error(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ContractError("(body)", "is not valid JSON") from None
    event_ms, amount_minor = check(transaction, suspicious=may_hold_card_number(raw), now_ms=now_ms)
    return transaction, event_ms, amount_minor


def check(transaction: Transaction, *, suspicious: bool = True, now_ms: int | None = None) -> tuple[int, int]:
    """Hold `transaction` to the rules that its types cannot express; raise `ContractError`.

    Returns its event time in whole milliseconds and its amount in minor units.

    With `suspicious` False the fields are not searched for card numbers, because the bytes
    they came from already were.
    """
    if suspicious:
        for field in _TEXT_FIELDS:
            value = getattr(transaction, field)
            if value is not None and len(value) > 12 and looks_like_card_number(value):
                raise ContractError(field, "looks like a card number; send a token instead")
    if transaction.currency not in MINOR_DIGITS:
        raise ContractError("currency", f"should be {EXPECTED['currency']}")
    amount = transaction.amount
    if not amount.is_finite() or amount < 0:
        raise ContractError("amount", f"should be {EXPECTED['amount']}")
    if amount > LARGEST_AMOUNT:  # before any arithmetic, which a huge exponent would overflow
        raise ContractError("amount", f"is above the largest accepted, {LARGEST_AMOUNT} minor units")
    try:
        minor = minor_units(amount, transaction.currency)
    except ValueError as error:
        raise ContractError("amount", str(error)) from None
    if minor > LARGEST_AMOUNT:
        raise ContractError("amount", f"is above the largest accepted, {LARGEST_AMOUNT} minor units")
    event_ms = transaction.event_ms
    if event_ms < _EARLIEST_MS:
        raise ContractError("event_time", "is before 2000-01-01")
    if now_ms is not None and event_ms > now_ms + FUTURE_TOLERANCE_MS:
        raise ContractError("event_time", "is more than 5 minutes in the future")
    if (transaction.latitude is None) != (transaction.longitude is None):
        missing = "latitude" if transaction.latitude is None else "longitude"
        raise ContractError(missing, "is absent while the other coordinate is given")
    return event_ms, minor


def contract_error(error: msgspec.ValidationError) -> ContractError:
    """The `ContractError` for what msgspec refused, free of any input but the field's name."""
    message = str(error)
    named = _FIELD_IN_MESSAGE.search(message)
    if message.startswith("Object missing required field") and named:
        field = named.group(1)
        return ContractError(field, f"is missing; it should be {EXPECTED.get(field, 'present')}")
    if message.startswith("Object contains unknown field") and named:
        return ContractError(redact(named.group(1))[:64], "is not a field of the contract")
    path = _PATH.search(message)
    field = re.split(r"[.\[]", path.group(1))[0] if path else ""
    if field in EXPECTED:
        return ContractError(field, f"should be {EXPECTED[field]}")
    return ContractError("(body)", "should be a JSON object that holds one transaction")
