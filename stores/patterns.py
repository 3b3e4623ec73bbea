"""What did not arrive, in patterns: the views a row lacks, and the columns that nobody knows without them.

Training masks rows by pattern and chooses calibration and thresholds for each; the service finds a row's
pattern from what arrived; the decision log's statuses say how often each one happens. A pattern is one view,
one entity (its key's shard is away), one engine (all profiles: batch; all states: stream), or everything.

Somebody whom nobody has seen is no disturbance: views of an unknown customer are missing because there is
nothing to know, and training has such rows by nature. A view counts as *lost* where it should have been
there: it is stale, or it was not answered in time; the state is missing of an entity that has a profile; or
all profiles (all states) of everybody in the transaction are missing at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fraud.features.entities import ENTITIES
from fraud.features.feature_list import AGAINST, COMPARED, entity_features
from fraud.features.profiles import SERVED_PROFILES
from stores.declared import Declared, declared
from stores.expressions import Expression

UNDISTURBED: Final = "undisturbed"
PROFILES: Final = "profiles"
STATES: Final = "states"
EVERYTHING: Final = "everything"
#: Statuses of a view that should have been there.
_LATE: Final = frozenset({"stale", "timeout"})

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Views that are lost together. `kind` is view, entity, engine or everything."""

    name: str
    kind: str
    views: frozenset[str]


@dataclass(frozen=True)
class Views:
    """The views of the served row: by name, whose they are, which engine's, and which columns need them."""

    #: The key of the entity that each view is of.
    key: Mapping[str, str]
    profiles: frozenset[str]
    states: frozenset[str]
    columns: Mapping[str, frozenset[str]]

    def patterns(self) -> tuple[Pattern, ...]:
        """Every pattern, smallest first: views, entities, engines, everything."""
        every = self.profiles | self.states
        single = [Pattern(view, "view", frozenset({view})) for view in self.key]
        entities = [
            Pattern(entity.name, "entity", frozenset(view for view in every if self.key[view] == entity.key))
            for entity in ENTITIES
        ]
        engines = [Pattern(PROFILES, "engine", self.profiles), Pattern(STATES, "engine", self.states)]
        return (*single, *entities, *engines, Pattern(EVERYTHING, "everything", every))

    def unknown(self, views: frozenset[str]) -> frozenset[str]:
        """The columns that are unknown without these views."""
        return frozenset().union(*[self.columns[view] for view in views])

    def lost(self, status: Mapping[str, str], named: Callable[[str], bool]) -> frozenset[str]:
        """The views of a row that should have been there. `named` tells whether the transaction names the
        entity of a key."""
        mine = [view for view in self.key if named(self.key[view])]
        lost = {view for view in mine if status.get(view) in _LATE}
        for entity in ENTITIES:
            if status.get(entity.velocity_view) == "missing" and status.get(entity.profile_view) == "fresh":
                lost.add(entity.velocity_view)
        for engine in (self.profiles, self.states):
            if not any(status.get(view) == "fresh" for view in mine if view in engine):
                lost |= engine
        return frozenset(lost)


def views(own: Declared | None = None) -> Views:
    """The views of the row that is served here."""
    own = declared() if own is None else own
    key: dict[str, str] = {}
    columns: dict[str, frozenset[str]] = {}
    against = {feature.name: feature for feature in AGAINST}
    for entity in ENTITIES:
        key[entity.profile_view] = key[entity.velocity_view] = entity.key
        compared = {name for name, feature in against.items() if feature.entity == entity.name}
        rates = {each.name for each in COMPARED if each.name in compared and each.function == "rate"}
        columns[entity.profile_view] = frozenset({*SERVED_PROFILES[entity.name], *compared})
        columns[entity.velocity_view] = frozenset({*(f.name for f in entity_features(entity)), *rates})
    profiles = {entity.profile_view for entity in ENTITIES}
    states = {entity.velocity_view for entity in ENTITIES}
    declarations = own.declarations
    for stream in declarations.streams:
        key[stream.name], columns[stream.name] = stream.key, frozenset(a.name for a in stream.aggregates)
        states.add(stream.name)
    for table in declarations.tables:
        key[table.name], columns[table.name] = table.key, frozenset(table.features)
        profiles.add(table.name)
    needs = {each.name: Expression(each.expression).variables for each in declarations.expressions}
    for view in columns:
        unknown = set(columns[view])
        # Expressions may stand on expressions, which are declared before them.
        for name, variables in needs.items():
            if unknown.intersection(variables):
                unknown.add(name)
        columns[view] = frozenset(unknown)
    return Views(key, frozenset(profiles), frozenset(states), columns)


def masked(matrix: Floats, names: Sequence[str], pattern: Pattern, of: Views | None = None) -> Floats:
    """A copy of rows (n x names) as they would be without the pattern's views."""
    unknown = (of or views()).unknown(pattern.views)
    result = matrix.copy()
    result[:, [place for place, name in enumerate(names) if name in unknown]] = np.nan
    return result


def smallest(patterns: Sequence[Pattern], lost: frozenset[str]) -> Pattern | None:
    """The smallest pattern that covers what is lost; None where nothing is, or none covers it."""
    if not lost:
        return None
    covering = [pattern for pattern in patterns if lost <= pattern.views]
    return min(covering, key=lambda pattern: len(pattern.views), default=None)
