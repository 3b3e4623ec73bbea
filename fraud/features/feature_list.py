"""The list of request-time features as they are declared: names, meanings, and the model's vector.

Missing is NaN, never zero: an entity that the transaction does not name, or that no state is
known of, has NaN for all of its features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fraud.declared.figures import Figure
from fraud.features.entities import ENTITIES, Entity, velocity_figures
from fraud.features.phrases import Phrase
from fraud.features.plan import STANDARD
from fraud.features.profiles import PROFILE_FEATURES, SERVED_PROFILES
from fraud.features.wording import of_request, of_state


@dataclass(frozen=True, slots=True)
class Feature:
    """One request-time feature, a Float64; `entity` is None for the transaction's own.

    `phrase` is how it reads as a reason for a decision.
    """

    name: str
    meaning: str
    entity: str | None = None
    phrase: Phrase | None = None


#: Functions of the request that give codes of categories.
CODES: Final = frozenset({"code"})


def entity_features(entity: Entity) -> list[Feature]:
    """The features that an entity's state gives, in order."""
    return [
        Feature(each.name, each.meaning, entity.name, of_state(entity.name, each))
        for each in velocity_figures(entity)
    ]


#: Of each feature that another one may look at, the entity it is of.
_OWNERS: Final = {each.name: name for name, features in PROFILE_FEATURES.items() for each in features} | {
    each.name: entity.name for entity in ENTITIES for each in velocity_figures(entity)
}


def _compares(figure: Figure) -> bool:
    return any(column in _OWNERS for column in figure.columns)


def _request_feature(figure: Figure, owner: str | None) -> Feature:
    return Feature(figure.name, figure.meaning, owner, of_request(owner, figure))


#: Figures of the transaction alone, and those that hold it against an entity's history.
ALONE: Final = tuple([each for each in STANDARD.requests if not _compares(each)])
COMPARED: Final = tuple([each for each in STANDARD.requests if _compares(each)])
AGAINST: Final[tuple[Feature, ...]] = tuple(
    [_request_feature(each, _OWNERS[each.columns[-1]]) for each in COMPARED]
)

#: What the on-demand view returns, in order.
TRANSACTION_FEATURES: Final[tuple[Feature, ...]] = (
    *(_request_feature(each, None) for each in ALONE),
    *(feature for entity in ENTITIES for feature in entity_features(entity)),
    *AGAINST,
)
#: Features that are codes of categories, for the model.
CATEGORICAL: Final = tuple([each.name for each in STANDARD.requests if each.function in CODES])

#: The model's row: names in order.
VECTOR: Final[tuple[str, ...]] = (
    *(name for entity in ENTITIES for name in SERVED_PROFILES[entity.name]),
    *(feature.name for feature in TRANSACTION_FEATURES),
)

_PROFILE_COLUMNS: Final = frozenset(each.name for features in PROFILE_FEATURES.values() for each in features)
#: Profile columns that the request-time features need.
PROFILE_INPUTS: Final[tuple[str, ...]] = tuple(
    dict.fromkeys([column for each in COMPARED for column in each.columns if column in _PROFILE_COLUMNS])
)

_PROFILES: Final = tuple(feature for features in PROFILE_FEATURES.values() for feature in features)
#: How each feature reads as a reason for a decision; those that are never one are left out.
PHRASES: Final[dict[str, Phrase]] = {
    **{each.name: each.phrase for each in _PROFILES if each.phrase is not None},
    **{each.name: each.phrase for each in TRANSACTION_FEATURES if each.phrase is not None},
}
