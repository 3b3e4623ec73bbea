"""What one transaction tells the states of its entities: integers only, ready to add."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct

from fraud.contract import Transaction
from fraud.entities import ENTITIES, TRACKED_FIELDS

_SIGN = 1 << 63
#: Hashes keep this bit set, so that a hash in a packed state never equals a time in it.
_MARK = 1 << 62


@lru_cache(maxsize=1 << 18)
def stable_hash(text: str) -> int:
    """A 64-bit signed hash of `text`, the same in every process and on every machine, never 0."""
    value = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") | _MARK
    return value - (1 << 64) if value & _SIGN else value


class Observation(Struct, frozen=True, gc=False):
    """One transaction as velocity states see it.

    `event_ms` is event time (UTC milliseconds), `amount` reference cents, `ids` the entities'
    values in `ENTITIES` order (None where absent), `tracked` one tuple per entity with the
    hashes its last-seen tables take (0 where absent), `location` micro-degrees packed by
    `pack_location`, or None.
    """

    event_ms: int
    amount: int
    transaction_key: int
    ids: tuple[str | None, ...]
    tracked: tuple[tuple[int, ...], ...]
    location: int | None


def pack_location(latitude: float, longitude: float) -> int:
    """Both coordinates, rounded to micro-degrees, in one signed 64-bit integer."""
    return (round(latitude * 1e6) << 32) | (round(longitude * 1e6) & 0xFFFFFFFF)


def observe(transaction: Transaction) -> Observation:
    """The observation that `transaction` adds to each of its entities."""
    latitude, longitude = transaction.latitude, transaction.longitude
    hashes = {}
    for name, field in TRACKED_FIELDS.items():
        value = getattr(transaction, field)
        hashes[name] = stable_hash(value) if value is not None else 0
    return Observation(
        event_ms=transaction.event_ms,
        amount=transaction.amount_reference,
        transaction_key=stable_hash(transaction.transaction_id),
        ids=(
            transaction.customer_id, transaction.card_id, transaction.merchant_id,
            transaction.terminal_id, transaction.device_id, transaction.ip,
        ),
        tracked=tuple([tuple([hashes[name] for name in entity.tracked]) for entity in ENTITIES]),
        location=pack_location(latitude, longitude) if latitude is not None and longitude is not None else None,
    )  # fmt: skip


assert [entity.key for entity in ENTITIES] == [
    "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip",
], "Observation.ids is written in this order"  # fmt: skip
