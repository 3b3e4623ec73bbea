"""The contract: one card transaction as clients, the event log and the lake know it.

`parse_transaction` is the only door. It returns a valid `Transaction` in canonical form
(`fraud.contract.canonical`) or raises a `ContractError` that names the field and says what it
should be, without repeating the input.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from string import ascii_uppercase
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import astuple, force_setattr

from fraud.contract.attributes import Attributes, check_attributes
from fraud.contract.canonical import (
    clean_text,
    cut_fraction,
    is_plain_address,
    is_plain_amount,
    may_be_finer,
    normal_address,
    second_look,
)
from fraud.contract.cards import looks_like_card_number, may_hold_card_number, outline
from fraud.contract.fields import EXPECTED, FIELDS, Channel, contract_error
from fraud.contract.money import (
    MINOR_DIGITS,
    decimal_amount,
    in_minor_digits,
    minor_units,
    nearly_minor_units,
    reference_cents,
    whole_minor_units,
)
from fraud.contract.refusal import ContractError as ContractError

Identifier = Annotated[str, Meta(min_length=1, max_length=64)]
#: A client's own id, or one behind the name of its id space: that is what it is called in the event log.
TransactionId = Annotated[str, Meta(min_length=1, max_length=128)]
#: What may be absent may be empty as well, which means the same.
Optional = Annotated[str, Meta(max_length=64)] | None
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EARLIEST_MS: Final = 946_684_800_000  # 2000-01-01: anything before is a broken clock
LATEST_MS: Final = 253_370_764_800_000  # 9999-01-01: no calendar goes on for long after it
#: How far ahead of the receiver's clock an event may claim to be.
FUTURE_TOLERANCE_MS: Final = 300_000
#: Largest amount accepted, in minor units.
LARGEST_AMOUNT: Final = 10**12
LARGEST_BODY: Final = 16_384
_TOO_LARGE: Final = f"is above the largest accepted, {LARGEST_AMOUNT} minor units"


class Transaction(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One card transaction. After parsing it is in canonical form: `event_time` is UTC in whole
    milliseconds, `amount` has the decimals of its currency, text is composed and without blanks
    around it, `ip` is as RFC 5952 writes it.

    `card_id` is a token, never a card number. Optional fields may be absent, null or empty, and
    scoring still works without them. The place 0, 0 is none: it is what a device reports that
    does not know where it is.
    """

    transaction_id: TransactionId
    event_time: Annotated[datetime, Meta(tz=True)]
    customer_id: Identifier
    card_id: Identifier
    merchant_id: Identifier
    amount: Decimal
    currency: str
    channel: Channel
    terminal_id: Optional = None
    device_id: Optional = None
    ip: Optional = None
    merchant_category: Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=0, le=999_999)] | None = (
        None
    )
    country: Optional = None
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None
    #: Declared fields of a team's own. The doors of the platform hold them to their declaration; whoever
    #: reads a log or the lake takes what it knows of them.
    attributes: Attributes | None = None

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


_TEXT_FIELDS: Final = (
    "transaction_id", "customer_id", "card_id", "merchant_id", "currency", "terminal_id",
    "device_id", "ip", "merchant_category",
)  # fmt: skip

_OPTIONAL_TEXT: Final = ("terminal_id", "device_id", "ip", "merchant_category", "country")
_REQUIRED: Final = 8
#: Any two capitals: ISO 3166 changes, and user-assigned codes are in use. (A pattern would cost more.)
_COUNTRIES: Final = frozenset(map("".join, product(ascii_uppercase, repeat=2)))
_COMMAS: Final = len(FIELDS) - 1
assert len(FIELDS) == _REQUIRED + len(_OPTIONAL_TEXT) + 2

#: The fields that are searched for card numbers.
_searched: tuple[str, ...] = _TEXT_FIELDS


_decode: Final[Callable[[bytes], Transaction]] = msgspec.json.Decoder(Transaction).decode
encode_transaction: Final[Callable[[Transaction], bytes]] = msgspec.json.Encoder(
    decimal_format="string", order="deterministic"
).encode


def declare_cardless(fields: Collection[str]) -> None:
    """Search all text fields but `fields` for card numbers from now on, in this process.

    About one number in 24 of 16 digits is a card number by all that can be seen of it. Who has such
    ids says here that they are none. Raises ValueError for what is no text field.
    """
    global _searched
    unknown = sorted(set(fields) - set(_TEXT_FIELDS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: should be among {', '.join(_TEXT_FIELDS)}")
    _searched = tuple(field for field in _TEXT_FIELDS if field not in fields)


def canonical_id(text: str, field: str = "transaction_id") -> str:
    """An id in the form that transactions have it in; raise `ContractError` for what is none."""
    text = text if text.isascii() and text.isprintable() and " " not in text else clean_text(field, text)
    if not text:
        raise ContractError(field, f"should be {EXPECTED[field]}")
    if field in _searched and looks_like_card_number(text):
        raise ContractError(field, "looks like a card number; send a token instead")
    return text


def canonical_time(moment: datetime) -> datetime:
    """A time as transactions have it: UTC, cut off at the millisecond."""
    return _EPOCH + (moment - _EPOCH) // _MILLISECOND * _MILLISECOND


def searched_fields() -> tuple[str, ...]:
    """The fields that are searched for card numbers."""
    return _searched


def parse_transaction(raw: bytes, *, now_ms: int | None = None) -> Transaction:
    """Decode and validate one JSON transaction.

    `now_ms` is the receiver's clock (milliseconds, UTC); with it, an event more than
    `FUTURE_TOLERANCE_MS` ahead is refused. Raises `ContractError`.
    """
    return parse_measured(raw, now_ms=now_ms)[0]


def parse_measured(raw: bytes, *, now_ms: int | None = None) -> tuple[Transaction, int, int, bool]:
    """As `parse_transaction`, with what checking has computed: event time in whole milliseconds, the
    amount in minor units, and whether text or place stood in `raw` in another form than the canonical one.
    """
    if len(raw) > LARGEST_BODY:
        raise ContractError("(body)", f"larger than {LARGEST_BODY} bytes")
    seen = outline(raw)
    plain = seen.isascii()
    try:
        transaction = _decode(cut_fraction(raw) if may_be_finer(seen) else raw)
        values = astuple(transaction)
        optional = values[_REQUIRED:-1]  # `attributes` stand last, and cost the second look
        # Each field but the first has a comma before it. One that is null, or a comma in a text, only
        # costs the second look.
        if not plain or seen.count(b",") != _COMMAS - optional.count(None) or not is_plain_amount(seen):
            second_look(raw)
    except msgspec.ValidationError as error:
        raise contract_error(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ContractError("(body)", "is not valid JSON") from None
    altered = (not plain or (b" " in raw and _blank_in(values))) and _clean_texts(transaction)
    if altered:
        optional = astuple(transaction)[_REQUIRED:-1]
    terminal, device, ip, category, country, latitude, longitude = optional
    if "" in (terminal, device, ip, category, country):
        altered = True
        for field in _OPTIONAL_TEXT:
            if getattr(transaction, field) == "":
                force_setattr(transaction, field, None)
        ip, country = transaction.ip, transaction.country
    if country is not None and country not in _COUNTRIES:
        raise ContractError("country", f"should be {EXPECTED['country']}")
    if category.__class__ is int:
        altered = True
        force_setattr(transaction, "merchant_category", str(category))
    if ip is not None and not is_plain_address(ip):
        altered |= _set_address(transaction, ip)
    if latitude == 0 or longitude == 0:
        altered = True
        _set_place(transaction, latitude, longitude)
    suspicious = may_hold_card_number(raw, seen)
    event_ms, amount_minor = check(transaction, suspicious=suspicious, now_ms=now_ms)
    moment = transaction.event_time
    if moment.tzinfo is not UTC or moment.microsecond % 1000:
        force_setattr(transaction, "event_time", _EPOCH + timedelta(milliseconds=event_ms))
    return transaction, event_ms, amount_minor, altered


def check(transaction: Transaction, *, suspicious: bool = True, now_ms: int | None = None) -> tuple[int, int]:
    """Hold `transaction` to the rules that its types cannot express; raise `ContractError`.

    Returns its event time in whole milliseconds and its amount in minor units, and gives the amount
    the decimals of its currency.

    With `suspicious` False the fields are not searched for card numbers, because the bytes
    they came from already were.
    """
    if suspicious:
        for field in _searched:
            value = getattr(transaction, field)
            if value is not None and looks_like_card_number(value):
                raise ContractError(field, "looks like a card number; send a token instead")
    if transaction.attributes is not None:
        check_attributes(transaction.attributes, suspicious)
    minor = _minor_amount(transaction)
    event_ms = (transaction.event_time - _EPOCH) // _MILLISECOND
    if event_ms < _EARLIEST_MS:
        raise ContractError("event_time", "is before 2000-01-01")
    if event_ms >= LATEST_MS:
        raise ContractError("event_time", "is after the year 9998")
    if now_ms is not None and event_ms > now_ms + FUTURE_TOLERANCE_MS:
        raise ContractError("event_time", "is more than 5 minutes in the future")
    if (transaction.latitude is None) != (transaction.longitude is None):
        missing = "latitude" if transaction.latitude is None else "longitude"
        raise ContractError(missing, "is absent while the other coordinate is given")
    return event_ms, minor


def _minor_amount(transaction: Transaction) -> int:
    """The amount in minor units, after giving it the decimals of its currency in place."""
    amount, currency = transaction.amount, transaction.currency
    if currency not in MINOR_DIGITS:
        raise ContractError("currency", f"should be {EXPECTED['currency']}")
    if in_minor_digits(amount, currency) and 0 < amount <= LARGEST_AMOUNT:
        minor = whole_minor_units(amount, currency)
    else:
        if not amount.is_finite() or amount < 0:
            raise ContractError("amount", f"should be {EXPECTED['amount']}")
        if amount > LARGEST_AMOUNT:  # before any arithmetic, which a huge exponent would overflow
            raise ContractError("amount", _TOO_LARGE)
        try:
            minor = minor_units(amount, currency)
        except ValueError as error:
            nearest = nearly_minor_units(amount, currency)
            if nearest is None:
                raise ContractError("amount", str(error)) from None
            minor = nearest
        force_setattr(transaction, "amount", decimal_amount(minor, currency))
    if minor > LARGEST_AMOUNT:
        raise ContractError("amount", _TOO_LARGE)
    return minor


def _blank_in(values: tuple[Any, ...]) -> bool:
    return " " in "".join([value for value in values if value.__class__ is str])


def _clean_texts(transaction: Transaction) -> bool:
    """Compose and trim the text of a transaction that was just decoded, in place; say if that changed any."""
    changed = False
    for field in (*_TEXT_FIELDS, "country"):
        value = getattr(transaction, field)
        if value.__class__ is str:
            clean = clean_text(field, value)
            if clean != value:
                changed = True
                force_setattr(transaction, field, clean)
                if not clean and field in FIELDS[:_REQUIRED]:
                    raise ContractError(field, f"should be {EXPECTED[field]}")
    return changed


def _set_address(transaction: Transaction, text: str) -> bool:
    address = normal_address(text)
    if address is None:
        raise ContractError("ip", f"should be {EXPECTED['ip']}")
    force_setattr(transaction, "ip", address)
    return address != text


def _set_place(transaction: Transaction, latitude: float | None, longitude: float | None) -> None:
    """The place 0, 0 is none; and no degree is -0."""
    if latitude is not None and longitude is not None:
        nowhere = latitude == longitude
        force_setattr(transaction, "latitude", None if nowhere else latitude + 0.0)
        force_setattr(transaction, "longitude", None if nowhere else longitude + 0.0)
