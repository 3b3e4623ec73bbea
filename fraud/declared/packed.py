"""A declared state as bytes, and back: the parts that `fraud.declared.layout` lists, one behind the other."""

from __future__ import annotations

from array import array
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fraud.declared.layout import (
    BUCKETS_BITS,
    COUNT_MASKS,
    COUNTS,
    EVENTS_BITS,
    FIXED_WORDS,
    KIND,
    STAIR_WORDS,
)
from fraud.declared.sketch import Sketch, packed_bytes
from fraud.state.last_seen import ENTRY_BYTES
from fraud.state.layout import StateError

if TYPE_CHECKING:
    from fraud.declared.state import DeclaredState

_step: Final = Struct("<qdd").pack
_LOOSE_SHIFT: Final = EVENTS_BITS + BUCKETS_BITS


def packed(state: DeclaredState) -> bytes:
    """The state as bytes: equal states give equal bytes."""
    header, layout = state.header, state.layout
    events = len(state.events) // (8 * layout.event_words)
    buckets = len(state.buckets) // (8 * layout.bucket_words)
    header[COUNTS] = events | buckets << EVENTS_BITS | state.loose << _LOOSE_SHIFT
    lengths = bytes([len(steps) for steps in state.stairs])
    lengths += bytes([len(table) // ENTRY_BYTES for table in state.tables])
    lengths += bytes([0 if sketch is None else len(sketch.times) for sketch in state.sketches])
    lengths += bytes(-len(lengths) % 8)
    if lengths:
        header[FIXED_WORDS:] = array("q", lengths)
    parts: list[bytes | bytearray | array[int]] = [header, state.events, state.buckets]
    for number, steps in enumerate(state.stairs):
        sign = 1.0 if number < len(layout.highs) else -1.0
        parts.append(b"".join([_step(time, sign * high, sign * low) for time, high, low in steps]))
    parts += state.tables
    parts += [sketch.pack() for sketch in state.sketches if sketch is not None]
    return b"".join(parts)


def unpack_into(state: DeclaredState, data: bytes) -> None:
    """Make an empty state what `data` packs; StateError for another layout's, and for damaged bytes."""
    layout = state.layout
    begin = 8 * layout.header_words
    if len(data) < begin or len(data) % 8:
        raise StateError(f"{len(data)} bytes are no packed state of {layout.view}")
    header = array("q", data[:begin])
    if header[KIND] != layout.kind:
        raise StateError(f"the state of {layout.view} was packed by another layout: rebuild the view")
    counts = header[COUNTS]
    stairs, tables = len(state.stairs), len(state.tables)
    lengths = header[FIXED_WORDS:].tobytes()[: layout.parts]
    sizes = [
        begin,
        (counts & COUNT_MASKS[0]) * 8 * layout.event_words,
        (counts >> EVENTS_BITS & COUNT_MASKS[1]) * 8 * layout.bucket_words,
        *[length * 8 * STAIR_WORDS for length in lengths[:stairs]],
        *[length * ENTRY_BYTES for length in lengths[stairs : stairs + tables]],
    ]
    for groups in lengths[stairs + tables :]:
        sizes.append(packed_bytes(data, sum(sizes), groups))
    bounds = np.cumsum(sizes).tolist()
    if bounds[-1] != len(data):
        raise StateError(f"the state of {layout.view} is cut short or has extra bytes")
    pieces: list[Any] = [data[low:high] for low, high in pairwise(bounds)]
    state.header, state.events, state.buckets = header, bytearray(pieces[0]), bytearray(pieces[1])
    state.loose = counts >> _LOOSE_SHIFT & COUNT_MASKS[2]
    for number in range(stairs):
        words = np.frombuffer(pieces[2 + number], dtype=np.int64).reshape(-1, STAIR_WORDS)
        sign = 1.0 if number < len(layout.highs) else -1.0
        values = words[:, 1:].view(np.float64) * sign
        state.stairs[number] = list(zip(words[:, 0].tolist(), *values.T.tolist(), strict=True))
    state.tables = tuple([bytearray(piece) for piece in pieces[2 + stairs : 2 + stairs + tables]])
    for index, groups in enumerate(lengths[stairs + tables :]):
        if groups:
            try:
                state.sketches[index] = Sketch.unpack(pieces[2 + stairs + tables + index], groups)
            except (ValueError, IndexError):
                raise StateError(f"a sketch in the state of {layout.view} is damaged") from None
