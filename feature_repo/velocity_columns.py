"""Figures of standard velocity views as columns, from states: for Feast's own doors and Spark's workers.

By the view's key alone, as of a time. What compares with the transaction being scored (`new`, `zscore`,
distances) is null without one: `transaction_features` has it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import numpy as np

from feature_repo.declared_columns import AT, STATE
from fraud.features.entities import ENTITIES, Entity, velocity_figures
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES
from fraud.features.on_demand import transaction_matrix
from fraud.features.request import REQUEST_FIELDS
from fraud.state.observation import NO_LOCATION

#: The tag of the standard velocity views: the entity whose states they hold.
VELOCITY_TAG: Final = "tollgate.velocity"
_VIEWS: Final = {entity.velocity_view: entity for entity in ENTITIES}
_COMPARING: Final = ("new", "zscore", "distance", "speed")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLACES: Final = {feature.name: place for place, feature in enumerate(TRANSACTION_FEATURES)}

Online = tuple[datetime | None, dict[str, Any] | None]


def entity_of(view: str) -> Entity | None:
    """The entity of a standard velocity view; None for any other view."""
    return _VIEWS.get(view)


@lru_cache(maxsize=16)
def readable(entity: str) -> tuple[str, ...]:
    """The figures of an entity's state that need no transaction."""
    chosen = next(each for each in ENTITIES if each.name == entity)
    return tuple([each.name for each in velocity_figures(chosen) if each.function not in _COMPARING])


def figures(entity: Entity, states: Sequence[Any], at_ms: Sequence[int]) -> dict[str, list[float]]:
    """By figure, its value of each state at each time; NaN where there is none."""
    count = len(states)
    request = {name: np.zeros(count, dtype=np.int64) for name in REQUEST_FIELDS}
    request["event_ms"] = np.array(at_ms, dtype=np.int64)
    request["location"] = np.full(count, NO_LOCATION, dtype=np.int64)
    known = {name: np.full(count, np.nan) for name in PROFILE_INPUTS}
    mine = [state if isinstance(state, bytes) else None for state in states]
    nobody: list[bytes | None] = [None] * count
    matrix = transaction_matrix([mine if each is entity else nobody for each in ENTITIES], request, known)
    return {name: matrix[:, _PLACES[name]].tolist() for name in readable(entity.name)}


def columns(view: str, inputs: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
    """The figures of `view` at each row's own time (`AT`, microseconds), from its states, in a worker."""
    entity = _VIEWS[view]
    found = figures(entity, inputs[STATE], [at // 1000 for at in inputs[AT]])
    nothing = [float("nan")] * len(inputs[AT])
    return {each.name: found.get(each.name, nothing) for each in velocity_figures(entity)}


def online_figures(view: str, names: Sequence[str], rows: Sequence[Online]) -> list[Online]:
    """Feast's online rows of states as rows of the figures `names`, as of now."""
    from feast.protos.feast.types.Value_pb2 import Value

    entity = _VIEWS[view]
    states = [values[entity.state_feature].bytes_val if values else None for _, values in rows]
    made = figures(entity, states, [time.time_ns() // 1_000_000] * len(rows))
    found: list[Online] = []
    for row, (stamp, values) in enumerate(rows):
        named = {}
        for name in names:
            number = made[name][row] if name in made else float("nan")
            named[name] = Value(double_val=number) if number == number else Value()
        if values and entity.state_feature in names:
            named[entity.state_feature] = values[entity.state_feature]
        known = stamp is not None and stamp > _EPOCH
        found.append((stamp if known else None, named if known else None))
    return found
