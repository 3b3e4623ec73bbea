"""What one transaction tells the states of its entities: hashes and integers, ready to add."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from fraud.contract import Transaction
from fraud.entities import ENTITIES
from fraud.last_seen import KEY_BYTES
from fraud.money import REFERENCE_CAP, reference_cents

_SIGN = 1 << 63
#: Hashes keep this bit set: so none is 0, and none is mistaken for a time.
_MARK = 1 << 62
_HIGH_HALF: Final = ~0xFFFFFFFF
#: In place of the hash bytes that tables do not keep.
_LOW_BYTES: Final = bytes(8 - KEY_BYTES)


def _hash(text: str) -> int:
    value = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") | _MARK
    return value - (1 << 64) if value & _SIGN else value


#: A 64-bit signed hash of a text, the same in every process and on every machine, never 0.
stable_hash = lru_cache(maxsize=1 << 18)(_hash)


@lru_cache(maxsize=1 << 18)
def _key(text: str) -> bytes:
    return _hash(text).to_bytes(8, "little", signed=True)[8 - KEY_BYTES :]


class Observation(Struct, frozen=True, gc=False):
    """One transaction as velocity states see it.

    `event_ms` is event time (UTC milliseconds), `word` holds the high half of the transaction
    id's hash and the amount in reference cents, `time_bytes` is `event_ms` as 8 bytes, `ids`
    the entities' values in `ENTITIES` order (None where absent), `keys` one tuple per entity
    with the hashes its last-seen tables take (the high 6 bytes of `stable_hash`, or none where
    absent), `location` micro-degrees packed by `pack_location`, or None.
    """

    event_ms: int
    transaction_key: int
    word: int
    time_bytes: bytes
    ids: tuple[str | None, ...]
    keys: tuple[tuple[bytes, ...], ...]
    location: int | None

    @property
    def amount(self) -> int:
        """Reference cents."""
        return self.word & 0xFFFFFFFF

    @property
    def tracked(self) -> tuple[tuple[int, ...], ...]:
        """`keys` as integers, which a read takes for those of `stable_hash`; 0 where absent."""
        return tuple(
            [
                tuple([int.from_bytes(_LOW_BYTES + key, "little", signed=True) for key in keys])
                for keys in self.keys
            ]
        )


def pack_location(latitude: float, longitude: float) -> int:
    """Both coordinates, rounded to micro-degrees, in one signed 64-bit integer."""
    return (round(latitude * 1e6) << 32) | (round(longitude * 1e6) & 0xFFFFFFFF)


def observe(transaction: Transaction) -> Observation:
    """The observation that `transaction` adds to each of its entities."""
    return observe_measured(transaction, transaction.event_ms, transaction.amount_minor)


def observe_measured(transaction: Transaction, event_ms: int, amount_minor: int) -> Observation:
    """As `observe`, where `parse_measured` has computed its time and amount already."""
    return observe_values(
        event_ms,
        reference_cents(amount_minor, transaction.currency),
        transaction.transaction_id,
        (
            transaction.customer_id, transaction.card_id, transaction.merchant_id,
            transaction.terminal_id, transaction.device_id, transaction.ip,
        ),
        transaction.country,
        transaction.latitude,
        transaction.longitude,
    )  # fmt: skip


def observe_values(
    event_ms: int,
    amount_reference: int,
    transaction_id: str,
    ids: tuple[str | None, ...],
    country: str | None,
    latitude: float | None,
    longitude: float | None,
) -> Observation:
    """The observation of a transaction that is at hand in parts, such as a row of the lake.

    `ids` are the entities' values in `ENTITIES` order; customer, card and merchant are never
    None. Raises ValueError for an amount below 0 or above the cap of reference cents.
    """
    if not 0 <= amount_reference <= REFERENCE_CAP:
        raise ValueError(f"an amount in reference cents is between 0 and {REFERENCE_CAP}")
    customer, card, merchant, _, device, _ = ids
    card_key = _key(card)
    used = (
        _key(merchant),
        _key(device) if device is not None else b"",
        _key(country) if country is not None else b"",
    )
    served = (card_key,)
    shared = (card_key, _key(customer))
    transaction_key = _hash(transaction_id)
    return Observation(
        event_ms,
        transaction_key,
        transaction_key & _HIGH_HALF | amount_reference,
        event_ms.to_bytes(8, "little", signed=True),
        ids,
        (used, used, served, served, shared, shared),
        pack_location(latitude, longitude) if latitude is not None and longitude is not None else None,
    )


assert [(entity.key, entity.tracked) for entity in ENTITIES] == [
    ("customer_id", ("merchant", "device", "country")),
    ("card_id", ("merchant", "device", "country")),
    ("merchant_id", ("card",)),
    ("terminal_id", ("card",)),
    ("device_id", ("card", "customer")),
    ("ip", ("card", "customer")),
], "observe_values is written in this order"
