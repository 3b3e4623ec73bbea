"""The batch features of the platform's own entities, as they are declared: what Spark computes at each cut.

Windows are whole days back from the cut, ``[cut - days, cut)`` over event time, and only what
was known before the cut counts. Amounts are reference cents. Days since an event are counted
in steps of the interval between cuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fraud.declared.figures import BatchView
from fraud.features.entities import ENTITIES
from fraud.features.phrases import Phrase
from fraud.features.plan import STANDARD
from fraud.features.wording import of_batch


@dataclass(frozen=True, slots=True)
class ProfileFeature:
    """One column of an entity's batch profile. `served` ones are part of the model's vector; `phrase` is how
    it reads as a reason for a decision."""

    name: str
    meaning: str
    served: bool = True
    phrase: Phrase | None = None


#: The platform's own batch views by entity name; one without figures where none are declared.
BATCH_OF: Final[dict[str, BatchView]] = {
    entity.name: BatchView(entity.profile_view, entity.name, entity.key, entity.name, ())
    for entity in ENTITIES
} | {view.entity: view for view in STANDARD.batches}
_LISTED: Final = frozenset(STANDARD.service)

#: Every batch feature by entity name, in declared order.
PROFILE_FEATURES: Final[dict[str, tuple[ProfileFeature, ...]]] = {
    name: tuple(
        [
            ProfileFeature(each.name, each.meaning, each.name in _LISTED, of_batch(name, each))
            for each in view.figures
        ]
    )
    for name, view in BATCH_OF.items()
}

#: The batch features that the model sees, by entity name.
SERVED_PROFILES: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(feature.name for feature in features if feature.served)
    for name, features in PROFILE_FEATURES.items()
}

#: Where somebody usually is, in degrees: what distances from it are measured by, and nothing that
#: a model may split on, since where somebody lives is no reason to suspect them.
USUAL_PLACE: Final = tuple(
    each.name
    for view in BATCH_OF.values()
    for each in view.figures
    if each.function in ("usual_latitude", "usual_longitude")
)
