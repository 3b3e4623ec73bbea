"""The states that a plain loop gives, and the states that Redis holds, in comparable form."""

from __future__ import annotations

from collections.abc import Iterable

import redis

from fraud.contract.transaction import Transaction
from fraud.features.entities import ENTITIES
from fraud.state.last_seen import entries
from fraud.state.layout import FIRST, TIME1
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from stores.redis_layout import decode_bytes, decode_timestamp, entity_key, field, ts_field
from stores.settings import Settings

Key = tuple[int, str]


def plain_loop(transactions: Iterable[Transaction]) -> dict[Key, VelocityState]:
    """One state per entity value, by adding each distinct transaction in the order given."""
    states: dict[Key, VelocityState] = {}
    known = set()
    for transaction in transactions:
        if transaction.transaction_id in known:
            continue
        known.add(transaction.transaction_id)
        seen = observe(transaction)
        for place, value in enumerate(seen.ids):
            if value is not None:
                if (place, value) not in states:
                    states[place, value] = VelocityState(ENTITIES[place])
                states[place, value].add(seen, place)
    return states


def stored_states(configured: Settings, keys: Iterable[Key]) -> dict[Key, bytes]:
    """The packed states that the online store holds for `keys`; each agrees with its version."""
    found = {}
    with redis.Redis.from_url(configured.redis.url) as client:
        for place, value in keys:
            entity = ENTITIES[place]
            name = entity_key(configured.feast.project, entity.key, value)
            fields = [field(entity.velocity_view, entity.state_feature), ts_field(entity.velocity_view)]
            state, version = client.hmget(name, fields)
            if state is not None and version is not None:
                found[place, value] = decode_bytes(state)
                unpacked = VelocityState.unpack(entity, found[place, value])
                assert unpacked.version == decode_timestamp(version)
    return found


def content(state: VelocityState) -> tuple[object, ...]:
    """What `state` says, whatever the order in which it was told."""
    header = state.header
    pairs = sorted(zip(state.events[::2], state.events[1::2], strict=True))
    tables = tuple(frozenset(entries(table)) for table in state.tables)
    places = tuple(header[TIME1:])
    return state.newest_ms, header[FIRST], places, tuple(pairs), bytes(state.buckets), tables


def differences(configured: Settings, expected: dict[Key, VelocityState]) -> list[Key]:
    """Keys whose stored state says something else than `expected`."""
    stored = stored_states(configured, expected)
    return [
        key
        for key, state in expected.items()
        if key not in stored or content(VelocityState.unpack(ENTITIES[key[0]], stored[key])) != content(state)
    ]
