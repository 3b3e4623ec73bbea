"""A packed state in readable form."""

from __future__ import annotations

from fraud.features.entities import ENTITIES
from fraud.state import buckets as bucket_list
from fraud.state.last_seen import ENTRY_BYTES
from fraud.state.layout import FIRST, LEAST_BYTES
from fraud.state.velocity import StateError, VelocityState


def describe(data: bytes) -> dict[str, object]:
    """A packed state in readable form, for a person at a shell; StateError if it is none."""
    if len(data) < LEAST_BYTES:
        raise StateError(f"{len(data)} bytes are no packed state")
    place = data[1]
    if place >= len(ENTITIES):
        raise StateError("the bytes name an entity that does not exist")
    entity = ENTITIES[place]
    state = VelocityState.unpack(entity, data)
    return {
        "entity": entity.name,
        "layout": data[0],
        "version_us": state.version,
        "newest_ms": state.newest_ms,
        "first_ms": state.header[FIRST],
        "bytes": len(data),
        "events": [
            {"event_ms": state.events[at], "amount_reference": state.events[at + 1] & 0xFFFFFFFF}
            for at in range(0, len(state.events), 2)
        ],
        "buckets": bucket_list.describe(state.buckets),
        "last_seen": {
            name: len(table) // ENTRY_BYTES for name, table in zip(entity.tracked, state.tables, strict=True)
        },
    }
