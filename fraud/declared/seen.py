"""One event as the states of a declared view see it."""

from __future__ import annotations

from msgspec import Struct


class DeclaredSeen(Struct, frozen=True, gc=False):
    """One event as the states of a declared view see it: `record` is `Layout.record` packed."""

    event_ms: int
    record: bytes


def declared_records(records: bytes, count: int) -> list[DeclaredSeen]:
    """The `count` observations whose records, all of one layout, stand one behind the other."""
    size = len(records) // count if count else 0
    parts = [records[at : at + size] for at in range(0, count * size, size or 1)]
    return [DeclaredSeen(int.from_bytes(part[:8], "little", signed=True), part) for part in parts]
