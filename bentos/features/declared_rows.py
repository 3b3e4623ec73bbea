"""Own features of a batch: read in the same round trip as the standard ones, computed by the same functions
that training runs.

A batch asks every entity value that declared views are keyed by for their fields, one HMGET each, behind the
standard questions. A view that is missing, stale or timed out is so alone: its features are null, the answer
says which it was, and no other view is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, Final

import numpy as np

from bentos.base.work import Work
from bentos.wire.redis_connection import pack
from bentos.wire.replies import Replies
from fraud.contract.answer import FeatureStatus
from fraud.declared.loops import Floats, read_states
from fraud.features.feature_list import VECTOR
from fraud.state.windows import joined
from stores.declared import Declared, Observer, state_feature, text_of
from stores.expressions import Expression
from stores.redis_layout import decode_number, decode_state, decode_timestamp, entity_key, ts_field
from stores.redis_layout import field as hash_field

_PLACE: Final = {name: place for place, name in enumerate(VECTOR)}


@dataclass(frozen=True, slots=True)
class _View:
    """A declared view as it is read: the hash fields of its values, and then of its timestamp."""

    name: str
    ttl_us: int
    fields: tuple[bytes, ...]
    names: tuple[str, ...]
    observer: Observer | None = None


@dataclass(slots=True)
class DeclaredPart:
    """What a batch's own features are made of, one row per transaction.

    `values` are the columns of each event, `numbers` the own features read so far by name; `status` and
    `timestamps` (microseconds) are by view.
    """

    values: list[dict[str, Any]]
    numbers: list[dict[str, float]]
    status: list[dict[str, FeatureStatus]]
    timestamps: list[dict[str, int]]
    asked: list[list[tuple[int, str]]] = field(default_factory=list)

    def take(self, rows: Sequence[int]) -> DeclaredPart:
        """Only these rows."""
        return DeclaredPart(
            [self.values[row] for row in rows],
            [self.numbers[row] for row in rows],
            [self.status[row] for row in rows],
            [self.timestamps[row] for row in rows],
        )


class DeclaredRows:
    """Builds the questions of a batch for its own features, and turns replies into them."""

    def __init__(self, own: Declared, project: str) -> None:
        self._own = own
        self._project = project
        self._views: dict[str, list[_View]] = {}
        needed = set(own.declarations.order)
        self._expressions = [
            (each.name, Expression(each.expression))
            for each in own.declarations.expressions
            if each.name in needed
        ]
        needed.update(name for _, one in self._expressions for name in one.variables)
        for observer in own.observers:
            layout = observer.layout
            if needed.intersection(layout.names):
                stored = hash_field(layout.view, state_feature(layout.view))
                view = _View(
                    layout.view, layout.ttl_ms * 1000, (stored, ts_field(layout.view)), layout.names, observer
                )
                self._views.setdefault(layout.key, []).append(view)
        for table in own.declarations.tables:
            names = tuple([name for name in table.features if name in needed])
            if names:
                fields = (*[hash_field(table.name, name) for name in names], ts_field(table.name))
                self._views.setdefault(table.key, []).append(
                    _View(table.name, table.ttl_us or 2**62, fields, names)
                )
        self._keys = tuple(self._views)
        self.views = tuple(sorted(view.name for views in self._views.values() for view in views))
        self._order = own.declarations.order

    def warm_up(self) -> None:
        """Have the interpreter compiled, or read as it was compiled before, ahead of the first request."""
        for observer in self._own.observers[:1]:
            layout = observer.layout
            nothing = dict.fromkeys((*layout.tables, *layout.values))
            self._aggregates(observer, b"", 0, nothing)

    def begin(self, batch: Sequence[Work]) -> tuple[list[bytes], DeclaredPart]:
        """The packed questions of a batch, and what is known before their replies."""
        commands: list[bytes] = []
        part = DeclaredPart([], [], [], [])
        for work in batch:
            values = self._own.event_values(work.transaction, work.amount_reference)
            part.values.append(values)
            part.numbers.append(self._own.attribute_numbers(values))
            part.status.append({})
            part.timestamps.append({})
            asked = []
            for name in self._keys:
                value = values[name]
                if value is not None:
                    key = entity_key(self._project, name, text_of(value))
                    asked.append((len(commands), name))
                    commands.append(
                        pack(b"HMGET", key, *[each for view in self._views[name] for each in view.fields])
                    )
            part.asked.append(asked)
        return commands, part

    def fill(self, part: DeclaredPart, event_us: Sequence[int], replies: Replies, first: int) -> None:
        """Take up the replies to the questions, from `first` on."""
        found = replies.objects(first, first + sum(map(len, part.asked)))
        for row, asked in enumerate(part.asked):
            status = part.status[row]
            status.update(dict.fromkeys(self.views, "missing"))
            for number, key in asked:
                reply = found[number] if number < len(found) else None
                fields: list[bytes | None] = reply if isinstance(reply, list) else []
                at = 0
                for view in self._views[key]:
                    given = fields[at : at + len(view.fields)]
                    at += len(view.fields)
                    status[view.name] = self._take(part, row, view, given, event_us[row])

    def _take(
        self, part: DeclaredPart, row: int, view: _View, given: Sequence[bytes | None], event_us: int
    ) -> FeatureStatus:
        if len(given) < len(view.fields):
            return "timeout"
        stamp = given[-1]
        if stamp is None:
            return "missing"
        try:
            moment = decode_timestamp(stamp)
            if view.observer is None:
                numbers = [decode_number(value) for value in given[:-1]]
                read = dict(zip(view.names, numbers, strict=True))
            else:
                read = {}
        except ValueError:
            return "missing"
        part.timestamps[row][view.name] = moment
        if event_us - moment > view.ttl_us:
            return "stale"
        if view.observer is not None:
            state = decode_state(given[0])
            if state is None:
                return "missing"
            read = self._aggregates(view.observer, state, event_us // 1000, part.values[row])
        part.numbers[row].update(read)
        return "fresh"

    def _aggregates(
        self, observer: Observer, state: bytes, at_ms: int, values: Mapping[str, Any]
    ) -> dict[str, float]:
        layout = observer.layout
        hashes, asked = observer.asked(values)
        words, ends = joined([state])
        matrix = np.empty((1, len(layout.names)))
        read_states(
            words, ends, observer.shape, layout.operations, np.array([at_ms]), layout.ttl_ms,
            np.array([hashes], dtype=np.int64).reshape(1, -1), np.array([asked]).reshape(1, -1), matrix,
        )  # fmt: skip
        return dict(zip(layout.names, matrix[0].tolist(), strict=True))

    def columns(self, part: DeclaredPart, standard: Floats) -> Floats:
        """The own columns of the served rows, whose `standard` ones are at hand: (rows, own features)."""
        matrix = np.empty((len(part.numbers), len(self._order)))
        for row, numbers in enumerate(part.numbers):
            if self._expressions:
                values = part.values[row]
                for name, expression in self._expressions:
                    given = {
                        each: self._input(each, values, numbers, standard[row])
                        for each in expression.variables
                    }
                    value = expression.of(given)
                    numbers[name] = float(value) if isinstance(value, bool | int | float) else nan
            matrix[row] = [numbers.get(name, nan) for name in self._order]
        return matrix

    def _input(
        self, name: str, values: Mapping[str, Any], numbers: Mapping[str, float], standard: Floats
    ) -> Any:
        if name in values:
            return values[name]
        number = numbers.get(name, nan) if name not in _PLACE else float(standard[_PLACE[name]])
        return number if number == number else None

    @property
    def failures(self) -> int:
        """How often evaluating an expression has failed."""
        return sum(one.failures for _, one in self._expressions)
