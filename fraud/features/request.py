"""The request source: what a transaction itself tells the request-time features, as integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud.contract.fields import CHANNELS
from fraud.contract.money import CURRENCIES
from fraud.contract.transaction import Transaction
from fraud.features.entities import TRACKED_FIELDS
from fraud.state.observation import NO_LOCATION, pack_location, stable_hash

Ints = NDArray[np.int64]

assert TRACKED_FIELDS == {
    "customer": "customer_id", "card": "card_id", "merchant": "merchant_id", "device": "device_id",
    "country": "country",
}, "request_values is written in this order"  # fmt: skip

#: The request source: one Int64 per field. Hashes are `stable_hash`, 0 where absent.
REQUEST_FIELDS: Final[dict[str, str]] = {
    "event_ms": "event time that counts, milliseconds UTC",
    "lateness_ms": "how much later that is than when it happened",
    "transaction_key": "identity of the transaction, whose own event does not count; 0 for none",
    "amount_reference": "amount in reference cents",
    "channel_code": "index of the channel in the contract",
    "category_code": "merchant category code, or -1",
    "country_code": "country code, or -1",
    "currency_code": "ISO 4217 numeric code of the currency",
    "location": "packed micro-degrees, or the smallest integer",
    "customer_hash": "hash of customer_id",
    "card_hash": "hash of card_id",
    "merchant_hash": "hash of merchant_id",
    "device_hash": "hash of device_id, 0 if absent",
    "country_hash": "hash of country, 0 if absent",
    "has_terminal": "1 if terminal_id is given",
    "has_ip": "1 if ip is given",
}

#: Places of the event time that counts and of the lateness, side by side.
TIME_COLUMNS: Final = slice(0, 2)
assert tuple(REQUEST_FIELDS)[TIME_COLUMNS] == ("event_ms", "lateness_ms")

_CHANNEL_CODE: Final = {channel: code for code, channel in enumerate(CHANNELS)}
_CURRENCY_CODE: Final = {currency: known.number for currency, known in CURRENCIES.items()}


@lru_cache(maxsize=4096)
def _category_code(category: str | None) -> int:
    if category is None:
        return -1
    if category.isascii() and category.isdigit() and len(category) <= 4:
        return int(category)
    return 10_000 + (stable_hash(category) & 0xFFF)


def _country_code(country: str | None) -> int:
    return -1 if country is None else (ord(country[0]) - 65) * 26 + ord(country[1]) - 65


def _hash(value: str | None) -> int:
    return stable_hash(value) if value is not None else 0


def request_values(
    transaction: Transaction, event_ms: int, amount_reference: int, lateness_ms: int = 0, own: int = 0
) -> tuple[int, ...]:
    """The request-source fields of one transaction in `REQUEST_FIELDS` order.

    Event time (milliseconds) and amount (reference cents) are the transaction's own properties,
    given by callers that have them already: both are exact arithmetic of a microsecond. `lateness_ms`
    and `own` (`transaction_key`) where the transaction counts later than it happened, or may have been
    counted already.
    """
    latitude, longitude, country = transaction.latitude, transaction.longitude, transaction.country
    device = transaction.device_id
    return (
        event_ms,
        lateness_ms,
        own,
        amount_reference,
        _CHANNEL_CODE[transaction.channel],
        _category_code(transaction.merchant_category),
        _country_code(country),
        _CURRENCY_CODE[transaction.currency],
        NO_LOCATION if latitude is None or longitude is None else pack_location(latitude, longitude),
        stable_hash(transaction.customer_id),
        stable_hash(transaction.card_id),
        stable_hash(transaction.merchant_id),
        0 if device is None else stable_hash(device),
        0 if country is None else stable_hash(country),
        int(transaction.terminal_id is not None),
        int(transaction.ip is not None),
    )


def request_row(transaction: Transaction) -> dict[str, int]:
    """The request-source fields of one transaction."""
    values = request_values(transaction, transaction.event_ms, transaction.amount_reference)
    return dict(zip(REQUEST_FIELDS, values, strict=True))


def request_columns(columns: Mapping[str, Sequence[Any]]) -> dict[str, Ints]:
    """The request-source fields of many transactions, from the lake's columns.

    `columns` maps the lake's names to equally long sequences: `event_timestamp` as int64
    microseconds (or numpy datetime64), strings or None, `latitude`/`longitude` floats or None,
    and `lateness_ms` integers or None, where there is one.
    """

    def integers(values: Sequence[Any], code: Callable[[Any], int]) -> Ints:
        codes = {value: code(value) for value in set(values)}  # columns repeat their values
        return np.fromiter(map(codes.__getitem__, values), dtype=np.int64, count=len(values))

    times = np.asarray(columns["event_timestamp"])
    microseconds = (
        times.astype("datetime64[us]").astype(np.int64) if times.dtype.kind == "M" else times.astype(np.int64)
    )
    nothing = np.zeros(len(microseconds), dtype=np.int64)
    late = columns.get("lateness_ms")
    request = {
        "event_ms": microseconds // 1000,
        "lateness_ms": nothing if late is None else np.array([ms or 0 for ms in late], dtype=np.int64),
        # States of the past, as known before the transaction, cannot hold its own event.
        "transaction_key": nothing,
        "amount_reference": np.asarray(columns["amount_reference"], dtype=np.int64),
        "channel_code": integers(columns["channel"], _CHANNEL_CODE.__getitem__),
        "category_code": integers(columns["merchant_category"], _category_code),
        "country_code": integers(columns["country"], _country_code),
        "currency_code": integers(columns["currency"], _CURRENCY_CODE.__getitem__),
        "location": integers(
            list(zip(columns["latitude"], columns["longitude"], strict=True)),
            lambda place: NO_LOCATION if None in place or place[0] != place[0] else pack_location(*place),
        ),
    }
    for name, field in TRACKED_FIELDS.items():
        request[f"{name}_hash"] = integers(columns[field], _hash)
    request["has_terminal"] = integers(columns["terminal_id"], lambda value: value is not None)
    request["has_ip"] = integers(columns["ip"], lambda value: value is not None)
    return request
