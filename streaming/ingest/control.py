"""Control records: what travels in the event log beside transactions, and must not come from their producers.

A seed sets a velocity state, so it carries a signature under a key that producers do not have
(`stores.keys`, purpose `control`), over all that it says. What cannot be used is refused with the
reason: it becomes a dead letter, is counted and alerted, and changes no state.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from fraud.contract.transaction import FUTURE_TOLERANCE_MS, ContractError
from fraud.features.entities import ENTITIES
from fraud.state.layout import StateError
from fraud.state.observation import Observation, change_of
from stores.keys import Seal
from streaming import metrics
from streaming.states.tracks import STANDARD, Track

#: How control records begin; no transaction does.
PREFIX: Final = b'{"seed":'
SPENT_PREFIX: Final = b'{"spent":'
REWRITE_PREFIX: Final = b'{"rewrite":'
_FIELD: Final = "(seed)"


class Seed(Struct, forbid_unknown_fields=True):
    """A packed state of `key` of entity `seed` to merge; `state` and `signature` are base64."""

    seed: str
    key: str
    state: str
    signature: str


class Spent(Struct, forbid_unknown_fields=True, frozen=True):
    """What of a payment counts as spent from now on, after an outcome (`stores.outcomes`).

    `spent` is the transaction's id, `event_ms` when it counts, `ids` its entities in `ENTITIES` order,
    `before` and `after` reference cents, `known_ms` when it was sent; `outcome` names
    the outcome, which counts once.
    """

    spent: str
    event_ms: int
    ids: tuple[str | None, ...]
    before: int
    after: int
    known_ms: int
    outcome: str
    signature: str = ""


_decode = msgspec.json.Decoder(Seed).decode
_decode_spent = msgspec.json.Decoder(Spent).decode


def encode_spent(seal: Seal, spent: Spent) -> bytes:
    """The control record of `spent`, signed."""
    signature = _text(seal.sign(_signed_spent(spent)))
    return msgspec.json.encode(msgspec.structs.replace(spent, signature=signature))


def read_spent(seal: Seal, payload: bytes) -> tuple[Spent, Observation]:
    """The change, and what states are told of it; raise `ContractError`."""
    field = "(spent)"
    try:
        spent = _decode_spent(payload)
        signature = base64.b64decode(spent.signature, validate=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, ValueError):
        raise ContractError(field, "is no control record") from None
    if not seal.verifies(_signed_spent(spent), signature):
        metrics.UNVERIFIED.labels("spent").inc()
        raise ContractError(
            field, "is signed by no key in force: whoever sent it may not change what is spent"
        )
    if len(spent.ids) != len(ENTITIES):
        raise ContractError(field, "is of other entities than this program's")
    try:
        return spent, change_of(spent.event_ms, spent.spent, spent.before, spent.after, spent.ids)
    except (ValueError, OverflowError, struct.error):
        raise ContractError(field, "holds an amount or a time out of bounds") from None


class Rewrite(Struct, forbid_unknown_fields=True, frozen=True):
    """Asks the stream to write all its states to the online store again; `rewrite` names the asking."""

    rewrite: str
    signature: str


_decode_rewrite = msgspec.json.Decoder(Rewrite).decode


def encode_rewrite(seal: Seal, name: str) -> bytes:
    """The control record that asks for all states."""
    return msgspec.json.encode(Rewrite(name, _text(seal.sign(_signed_rewrite(name)))))


def read_rewrite(seal: Seal, payload: bytes) -> None:
    """Raise `ContractError` unless `payload` asks for all states, signed."""
    field = "(rewrite)"
    try:
        asked = _decode_rewrite(payload)
        signature = base64.b64decode(asked.signature, validate=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, ValueError):
        raise ContractError(field, "is no control record") from None
    if not seal.verifies(_signed_rewrite(asked.rewrite), signature):
        metrics.UNVERIFIED.labels("rewrite").inc()
        raise ContractError(field, "is signed by no key in force: whoever sent it may not ask for states")


def _signed_rewrite(name: str) -> bytes:
    return msgspec.msgpack.encode(("rewrite", name))


def _signed_spent(spent: Spent) -> bytes:
    return msgspec.msgpack.encode(("spent", msgspec.structs.replace(spent, signature="")))


def encode_seed(seal: Seal, entity: str, key: str, state: bytes) -> bytes:
    """The control record that seeds `key` of `entity` with a packed state."""
    signature = seal.sign(_signed(entity, key, state))
    return msgspec.json.encode(Seed(entity, key, _text(state), _text(signature)))


def read_seed(
    seal: Seal, payload: bytes, now_ms: int, tracks: Sequence[Track] = STANDARD
) -> tuple[int, str, bytes]:
    """Place of the entity or declared view in `tracks`, key and packed state; raise `ContractError`.

    `now_ms` is the reader's clock: a state that is newer than `FUTURE_TOLERANCE_MS` from now would keep
    honest events out for as long.
    """
    try:
        seed = _decode(payload)
        state = base64.b64decode(seed.state, validate=True)
        signature = base64.b64decode(seed.signature, validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        raise ContractError(_FIELD, "is no control record") from None
    if not seal.verifies(_signed(seed.seed, seed.key, state), signature):
        metrics.UNVERIFIED.labels("seed").inc()
        raise ContractError(_FIELD, "is signed by no key in force: whoever sent it may not seed states")
    place = next((place for place, track in enumerate(tracks) if track.name == seed.seed), None)
    if place is None:
        raise ContractError(_FIELD, "is of an entity that this program does not know")
    try:
        found = tracks[place].unpack(state)
        tracks[place].new().merge(found)  # what does not merge here would end the flow at its shard
    except (StateError, OverflowError, ValueError, IndexError):
        raise ContractError(_FIELD, "holds no state of this version") from None
    latest = now_ms + FUTURE_TOLERANCE_MS
    if found.newest_ms > latest or found.version > latest * 1000:
        raise ContractError(_FIELD, "holds a state that is more than 5 minutes in the future")
    return place, seed.key, state


def _signed(entity: str, key: str, state: bytes) -> bytes:
    return msgspec.msgpack.encode(("seed", entity, key, state))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
