"""Aggregates of declared stream views as columns, from states: for Feast's own doors and Spark's workers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import numpy as np

from fraud.declared.declaration import decode
from fraud.declared.layout import Layout
from fraud.declared.loops import read_states
from fraud.state.windows import joined
from stores.declared import Declared, Observer, declared, state_feature

#: The name that a call's rows have their time under (microseconds).
AT: Final = "__at"
#: The name that a call's rows have their states under.
STATE: Final = "__state"
_EVENT: Final = ("amount_reference",)


@lru_cache(maxsize=8)
def declared_of(document: bytes) -> Declared:
    """What a document declares, in a worker: compiled once a process."""
    return Declared(decode(document))


def columns(view: str, document: bytes, inputs: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
    """Every aggregate of `view` at each row's own time, in a worker that has the document of declarations.

    `inputs` are the states, the times (`AT`) and the columns of the event, as far as the rows have them:
    without them, aggregates that compare with the transaction itself are null.
    """
    own = declared_of(document)
    observer = next(each for each in own.observers if each.layout.view == view)
    rows = _rows(own, inputs) if all(name in inputs for name in _EVENT) else None
    at_ms = np.array(inputs[AT], dtype=np.int64) // 1000
    matrix = aggregates(observer, inputs[STATE], at_ms, rows)
    return {name: matrix[:, place].tolist() for place, name in enumerate(observer.layout.names)}


def _rows(own: Declared, inputs: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    names = [name for name in inputs if name not in (AT, STATE)]
    return [
        own.row_values(dict(zip(names, row, strict=True)))
        for row in zip(*[inputs[name] for name in names], strict=True)
    ]


def aggregates(
    observer: Observer, states: Sequence[bytes | None], at_ms: Any, rows: Sequence[Mapping[str, Any]] | None
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Every aggregate of a view: (rows, aggregates). `rows` are the events' columns, or None."""
    layout: Layout = observer.layout
    count = len(states)
    hashes = np.zeros((count, len(layout.tables)), dtype=np.int64)
    asked = np.full((count, len(layout.values)), np.nan)
    for place, values in enumerate(rows or ()):
        hashes[place], asked[place] = observer.asked(values)
    matrix = np.empty((count, len(layout.operations)))
    words, ends = joined([state if isinstance(state, bytes) else None for state in states])
    read_states(words, ends, layout.shape, layout.operations, at_ms, layout.ttl_ms, hashes, asked, matrix)
    return matrix


def online_aggregates(
    view: str, names: Sequence[str], rows: Sequence[tuple[datetime | None, dict[str, Any] | None]]
) -> list[tuple[datetime | None, dict[str, Any] | None]]:
    """Feast's online rows of states as rows of the aggregates `names`, as of now."""
    from feast.protos.feast.types.Value_pb2 import Value

    observer = next((each for each in declared().observers if each.layout.view == view), None)
    if observer is None:
        return [(stamp, None) for stamp, _ in rows]
    stored = state_feature(view)
    states = [values[stored].bytes_val if values else None for _, values in rows]
    now = np.full(len(rows), time.time_ns() // 1_000_000)
    matrix = aggregates(observer, states, now, None)
    place = {name: at for at, name in enumerate(observer.layout.names)}
    found: list[tuple[datetime | None, dict[str, Any] | None]] = []
    for row, (stamp, values) in enumerate(rows):
        named = {}
        for name in names:
            number = matrix[row, place[name]] if name in place else np.nan
            named[name] = Value(double_val=number) if number == number else Value()
        if values and stored in names:
            named[stored] = values[stored]
        known = stamp is not None and stamp > _EPOCH
        found.append((stamp if known else None, named if known else None))
    return found


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
