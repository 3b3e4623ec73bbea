"""What one transaction tells the states of its entities: hashes and integers, ready to add."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from struct import Struct as Layout
from typing import Final

from msgspec import Struct

from fraud.contract.money import REFERENCE_CAP, reference_cents
from fraud.contract.transaction import Transaction
from fraud.features.entities import ENTITIES
from fraud.state.last_seen import KEY_BYTES, NEVER

_SIGN = 1 << 63
#: Hashes keep this bit set: so none is 0, and none is mistaken for a time.
_MARK = 1 << 62
_HIGH_HALF: Final = ~0xFFFFFFFF
#: In place of the hash bytes that tables do not keep.
_LOW_BYTES: Final = bytes(8 - KEY_BYTES)
#: In place of a location where there is none: outside what `pack_location` gives.
NO_LOCATION: Final = -(1 << 63)
#: In place of a key where there is none, in a record.
_NO_KEY: Final = bytes(KEY_BYTES)
#: Keys in a record: those of an entity's tables stand in the order of its tables.
_RECORD_KEYS: Final = ("card", "customer", "merchant", "device", "country")
_RECORD: Final = Layout("<qqq" + f"{KEY_BYTES}s" * len(_RECORD_KEYS))
RECORD_BYTES: Final = _RECORD.size
#: What each entity reads of a record: the keys of other entities are passed over.
_OF_ENTITY: Final = tuple(
    Layout("<qqq" + "".join([f"{KEY_BYTES}{'s' if key in entity.tracked else 'x'}" for key in _RECORD_KEYS]))
    for entity in ENTITIES
)


def _hash(text: str) -> int:
    value = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") | _MARK
    return value - (1 << 64) if value & _SIGN else value


#: A 64-bit signed hash of a text, the same in every process and on every machine, never 0.
stable_hash = lru_cache(maxsize=1 << 18)(_hash)


_identity = b""


def use_identity(key: bytes) -> None:
    """Tell transactions apart under `key` from now on, in this process.

    States keep 31 bits of it and dedupe 63, so that without a key anybody finds two ids that are taken for
    one. All that make or add to the same states need the same key, for as long as those live.
    """
    global _identity
    _identity = key


def transaction_key(transaction_id: str) -> int:
    """The identity of a transaction: a 64-bit signed keyed hash (BLAKE2b), never 0."""
    digest = blake2b(transaction_id.encode(), digest_size=8, key=_identity).digest()
    value = int.from_bytes(digest, "little") | _MARK
    return value - (1 << 64) if value & _SIGN else value


class _Keys(dict[str | None, bytes]):
    """The hash bytes that tables keep of a text, and none of None: computed once, for so many texts.

    (An `lru_cache` keeps its entries in a list, which every look relinks: three far places in memory.)
    """

    def __missing__(self, text: str | None) -> bytes:
        if len(self) >= _MOST_KEYS:
            self.clear()
        whole = b"" if text is None else _hash(text).to_bytes(8, "little", signed=True)
        key = self[text] = whole[8 - KEY_BYTES :]
        return key


_MOST_KEYS: Final = 1 << 18
_keys: Final = _Keys()


class Observation(Struct, frozen=True, gc=False):
    """One transaction as velocity states see it.

    `event_ms` is event time (UTC milliseconds), `word` holds the high half of the transaction
    id's hash and the amount in reference cents, `record` is all that states look at as bytes of one
    size, of which `event_ms` is the first 8 (`read_records`), `ids` the entities' values in `ENTITIES`
    order (None where absent), `keys` one tuple per entity with the hashes its last-seen tables take
    (the high 6 bytes of `stable_hash`, or none where absent), `location` micro-degrees packed by
    `pack_location`, or None.
    """

    event_ms: int
    transaction_key: int
    word: int
    record: bytes
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
    keys = _keys
    card_key, customer_key, merchant_key = keys[card], keys[customer], keys[merchant]
    device_key, country_key = keys[device], keys[country]
    used = merchant_key, device_key, country_key
    served = (card_key,)
    shared = card_key, customer_key
    identity = transaction_key(transaction_id)
    word = identity & _HIGH_HALF | amount_reference
    location = pack_location(latitude, longitude) if latitude is not None and longitude is not None else None
    return Observation(
        event_ms,
        identity,
        word,
        _RECORD.pack(
            event_ms, word, NO_LOCATION if location is None else location,
            card_key, customer_key, merchant_key, device_key, country_key,
        ),
        ids,
        (used, used, served, served, shared, shared),
        location,
    )  # fmt: skip


def change_of(
    event_ms: int, transaction_id: str, before: int, after: int, ids: tuple[str | None, ...]
) -> Observation:
    """What states are told when another part of a payment counts as spent: `after`, and no longer `before`
    (reference cents).

    It is no event: it stands at a time long past, with the payment's own time in place of a location, and
    what counted before in place of the keys.
    """
    if not 0 <= before <= REFERENCE_CAP or not 0 <= after <= REFERENCE_CAP:
        raise ValueError(f"an amount in reference cents is between 0 and {REFERENCE_CAP}")
    identity = transaction_key(transaction_id)
    word = identity & _HIGH_HALF | after
    key = before.to_bytes(KEY_BYTES, "little")
    record = _RECORD.pack(NEVER, word, event_ms, *[key] * len(_RECORD_KEYS))
    return Observation(NEVER, identity, word, record, ids, tuple([(key,)] * len(ENTITIES)), event_ms)


def event_record(transaction: Transaction, event_ms: int, identity: int, amount_reference: int) -> bytes:
    """The record of the observation that `transaction` adds, counted at `event_ms`; `identity` is its
    `transaction_key`."""
    keys, latitude, longitude = _keys, transaction.latitude, transaction.longitude
    return _RECORD.pack(
        event_ms,
        identity & _HIGH_HALF | amount_reference,
        NO_LOCATION if latitude is None or longitude is None else pack_location(latitude, longitude),
        keys[transaction.card_id], keys[transaction.customer_id], keys[transaction.merchant_id],
        keys[transaction.device_id], keys[transaction.country],
    )  # fmt: skip


def record_key(name: str, value: str) -> tuple[slice, bytes]:
    """Where a record has the key of the entity `name`, and that of `value`."""
    begin = RECORD_BYTES - KEY_BYTES * (len(_RECORD_KEYS) - _RECORD_KEYS.index(name))
    return slice(begin, begin + KEY_BYTES), _keys[value]


def read_records(place: int, records: bytes) -> Iterator[Observation]:
    """The observations with these records, one after the other, without `ids` and with the keys of the
    entity at `place` in `ENTITIES` only: good for adding to its states."""
    before: tuple[tuple[bytes, ...], ...] = ((),) * place
    at, size = 0, _RECORD.size
    for time, word, location, *keys in _OF_ENTITY[place].iter_unpack(records):
        used = tuple(keys)
        if _NO_KEY in used:
            used = tuple([b"" if key == _NO_KEY else key for key in used])
        record = records[at : at + size]
        at += size
        yield Observation(
            time, 0, word, record, (), (*before, used), None if location == NO_LOCATION else location
        )


assert [(entity.key, entity.tracked) for entity in ENTITIES] == [
    ("customer_id", ("merchant", "device", "country")),
    ("card_id", ("merchant", "device", "country")),
    ("merchant_id", ("card",)),
    ("terminal_id", ("card",)),
    ("device_id", ("card", "customer")),
    ("ip", ("card", "customer")),
], "observe_values is written in this order"
assert all(sorted(entity.tracked, key=_RECORD_KEYS.index) == list(entity.tracked) for entity in ENTITIES)
