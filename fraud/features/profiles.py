"""The batch features: what Spark computes for every entity at each cut.

Windows are whole days back from the cut, ``[cut - days, cut)`` over event time, and only what
was known before the cut counts. Amounts are reference cents. Days since an event are counted
in steps of the interval between cuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fraud.features.entities import ENTITIES, PROFILE_DAYS, Entity

#: Entities whose own history an amount is held against.
AMOUNT_AGAINST: Final = ("customer", "card", "merchant", "terminal")
#: Where a customer usually is, in degrees: what distances from it are measured by, and nothing that
#: a model may split on, since where somebody lives is no reason to suspect them.
USUAL_PLACE: Final = ("customer_usual_latitude_30d", "customer_usual_longitude_30d")
#: A fraud risk is taken as if so many more genuine transactions had been seen.
RISK_PRIOR: Final = 10


@dataclass(frozen=True, slots=True)
class ProfileFeature:
    """One column of an entity's batch profile. `served` ones are part of the model's vector."""

    name: str
    meaning: str
    served: bool = True


def _profile(entity: Entity) -> tuple[ProfileFeature, ...]:
    name = entity.name
    features = []
    for days in PROFILE_DAYS:
        back = f"over {days} day{'s' if days > 1 else ''}"
        features += [
            ProfileFeature(f"{name}_txn_count_{days}d", f"transactions of the {name} {back}"),
            ProfileFeature(f"{name}_amount_sum_{days}d", f"sum of its amounts {back}", served=False),
            ProfileFeature(f"{name}_amount_mean_{days}d", f"mean of its amounts {back}"),
            ProfileFeature(
                f"{name}_amount_std_{days}d", f"standard deviation of its amounts {back}", served=days > 1
            ),
        ]
        features += [
            ProfileFeature(
                f"{name}_distinct_{other}s_{days}d",
                f"different {other}s it dealt with {back}",
                served=days > 1,
            )
            for other in entity.counterparties
        ]
        features += [
            ProfileFeature(f"{name}_fraud_count_{days}d", f"its frauds that became known {back}"),
            ProfileFeature(
                f"{name}_fraud_rate_{days}d",
                f"share of its transactions {back}, counted back from the label maturity before the cut, "
                "that were known to be fraud",
            ),
        ]
    features += [
        ProfileFeature(
            f"{name}_fraud_risk_30d",
            f"{name}_fraud_rate_30d as if {RISK_PRIOR} more genuine transactions had been seen",
        ),
        ProfileFeature(
            f"{name}_days_genuine_minus_fraud",
            "days since its newest transaction that ripened without a fraud report, less days since its newest "
            "known fraud: above 0 if the fraud is the newer; null without a known fraud",
        ),
        ProfileFeature(
            f"{name}_days_since_first_fraud_30d",
            "days since the first known of its frauds of the last 30 days; null without one",
        ),
    ]
    if name in AMOUNT_AGAINST:
        features.append(ProfileFeature(f"{name}_amount_max_30d", "largest of its amounts over 30 days"))
    if name == "customer":
        features += [
            ProfileFeature(
                place, f"{place.split('_')[2]} of the middle of its transactions with a location over 30 days"
            )
            for place in USUAL_PLACE
        ]
    if name == "merchant":
        features += [
            ProfileFeature(
                "merchant_share_30d", "share of all transactions that are the merchant's, over 30 days"
            ),
            ProfileFeature(
                "merchant_category_share_30d", "share of all transactions in its category, over 30 days"
            ),
            ProfileFeature("merchant_category_amount_mean_30d", "mean amount in its category over 30 days"),
            ProfileFeature(
                "merchant_category_amount_std_30d",
                "standard deviation of amounts in its category over 30 days",
            ),
        ]
    return tuple(features)


#: Every batch feature by entity name, in declared order.
PROFILE_FEATURES: Final[dict[str, tuple[ProfileFeature, ...]]] = {
    entity.name: _profile(entity) for entity in ENTITIES
}

#: The batch features that the model sees, by entity name.
SERVED_PROFILES: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(feature.name for feature in features if feature.served)
    for name, features in PROFILE_FEATURES.items()
}
