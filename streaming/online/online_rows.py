"""The parts of an online write that repeat, encoded once: key heads, times, length prefixes.

`stores.redis_layout` says what the bytes are; here its answers are cut where they repeat and
remembered. A test holds the joined parts to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from stores.redis_layout import encode_bytes, encode_timestamp, entity_key

_MICROSECONDS = 1_000_000


class KeyEncoder:
    """Redis keys of the entity values of one project; `keys` are the join keys by place."""

    def __init__(self, project: str, keys: Sequence[str]) -> None:
        self._project = project
        self._join_keys = keys
        self._tail = project.encode()
        self._heads: dict[tuple[int, int], bytes] = {}

    def key(self, place: int, value: str) -> bytes:
        """`entity_key` of `value`: all before it depends on the entity and its length only."""
        text = value.encode()
        size = len(text)
        head = self._heads.get((place, size))
        if head is None:
            whole = entity_key(self._project, self._join_keys[place], "x" * size)
            head = self._heads[place, size] = whole[: -(size + len(self._tail))]
        return head + text + self._tail


def timestamp(version: int) -> bytes:
    """`encode_timestamp`: whole seconds and the rest are separate fields, and both repeat."""
    seconds, rest = divmod(version, _MICROSECONDS)
    return _encoded_time(seconds * _MICROSECONDS) + _encoded_time(rest)


def value(state: bytes) -> bytes:
    """`encode_bytes`: states come in few lengths."""
    return _bytes_head(len(state)) + state


@lru_cache(maxsize=1 << 15)
def _encoded_time(microseconds: int) -> bytes:
    return encode_timestamp(microseconds)


@lru_cache(maxsize=1 << 14)
def _bytes_head(size: int) -> bytes:
    whole = encode_bytes(bytes(size))
    return whole[: len(whole) - size]
