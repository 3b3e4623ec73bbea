"""The batch features: what Spark computes for every entity at each cut.

Windows are whole days back from the cut, ``[cut - days, cut)`` over event time, and only what
was known before the cut counts. Amounts are reference cents. Days since an event are counted
in steps of the interval between cuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fraud.features.entities import ENTITIES, PROFILE_DAYS, Entity
from fraud.features.phrases import CALLED, WHERE, Phrase, count, fraud_code, money, positive, share

#: Entities whose own history an amount is held against.
AMOUNT_AGAINST: Final = ("customer", "card", "merchant", "terminal")
#: Where a customer usually is, in degrees: what distances from it are measured by, and nothing that
#: a model may split on, since where somebody lives is no reason to suspect them.
USUAL_PLACE: Final = ("customer_usual_latitude_30d", "customer_usual_longitude_30d")
#: A fraud risk is taken as if so many more genuine transactions had been seen.
RISK_PRIOR: Final = 10


@dataclass(frozen=True, slots=True)
class ProfileFeature:
    """One column of an entity's batch profile. `served` ones are part of the model's vector; `phrase` is how
    it reads as a reason for a decision."""

    name: str
    meaning: str
    served: bool = True
    phrase: Phrase | None = None


def _profile(entity: Entity) -> tuple[ProfileFeature, ...]:
    name = entity.name
    where, fraud = WHERE[name], fraud_code(name)
    features = []
    for days in PROFILE_DAYS:
        back, past = f"over {days} day{'s' if days > 1 else ''}", "1 day" if days == 1 else f"{days} days"
        features += [
            ProfileFeature(
                f"{name}_txn_count_{days}d", f"transactions of the {name} {back}",
                phrase=Phrase(f"{{}} purchases{where} in {past}", "V1", count,
                              one=f"1 purchase{where} in {past}"),
            ),
            ProfileFeature(f"{name}_amount_sum_{days}d", f"sum of its amounts {back}", served=False),
            ProfileFeature(
                f"{name}_amount_mean_{days}d", f"mean of its amounts {back}",
                phrase=Phrase(f"purchases of {{}} on average{where} in {past}", "A1", money),
            ),
            ProfileFeature(
                f"{name}_amount_std_{days}d", f"standard deviation of its amounts {back}", served=days > 1,
                phrase=Phrase(f"amounts{where} that differ by {{}} in {past}", "A1", money),
            ),
        ]  # fmt: skip
        features += [
            ProfileFeature(
                f"{name}_distinct_{other}s_{days}d", f"different {other}s it dealt with {back}",
                served=days > 1,
                phrase=Phrase(f"{{}} different {CALLED[other]}s{where} in {past}", "V1", count,
                              one=f"a single {CALLED[other]}{where} in {past}"),
            )
            for other in entity.counterparties
        ]  # fmt: skip
        features += [
            ProfileFeature(
                f"{name}_fraud_count_{days}d", f"its frauds that became known {back}",
                phrase=Phrase(f"{{}} frauds reported{where} in {past}", fraud, count,
                              one=f"1 fraud reported{where} in {past}", told=positive),
            ),
            ProfileFeature(
                f"{name}_fraud_rate_{days}d",
                f"share of its transactions {back}, counted back from the label maturity before the cut, "
                "that were known to be fraud",
                phrase=Phrase(f"{{}} of purchases{where} in {past} were fraud", fraud, share, told=positive),
            ),
        ]  # fmt: skip
    features += [
        ProfileFeature(
            f"{name}_fraud_risk_30d",
            f"{name}_fraud_rate_30d as if {RISK_PRIOR} more genuine transactions had been seen",
            phrase=Phrase(f"about {{}} of purchases{where} are fraud", fraud, share, told=positive),
        ),
        ProfileFeature(
            f"{name}_days_genuine_minus_fraud",
            "days since its newest transaction that ripened without a fraud report, less days since its newest "
            "known fraud: above 0 if the fraud is the newer; null without a known fraud",
            phrase=Phrase(
                f"fraud was reported{where}, and no purchase since is known to be genuine",
                fraud,
                told=positive,
            ),
        ),
        ProfileFeature(
            f"{name}_days_since_first_fraud_30d",
            "days since the first known of its frauds of the last 30 days; null without one",
            phrase=Phrase(f"fraud{where} since {{}} days", fraud, count, one=f"fraud{where} since 1 day"),
        ),
    ]
    if name in AMOUNT_AGAINST:
        features.append(
            ProfileFeature(
                f"{name}_amount_max_30d", "largest of its amounts over 30 days",
                phrase=Phrase(f"largest amount{where} in 30 days was {{}}", "A1", money),
            )
        )  # fmt: skip
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
                "merchant_share_30d",
                "share of all transactions that are the merchant's, over 30 days",
                phrase=Phrase("{} of all purchases are at this merchant", "H1", share),
            ),
            ProfileFeature(
                "merchant_category_share_30d",
                "share of all transactions in its category, over 30 days",
                phrase=Phrase("{} of all purchases are at this kind of merchant", "C1", share),
            ),
            ProfileFeature(
                "merchant_category_amount_mean_30d",
                "mean amount in its category over 30 days",
                phrase=Phrase("purchases of {} on average at this kind of merchant", "A1", money),
            ),
            ProfileFeature(
                "merchant_category_amount_std_30d",
                "standard deviation of amounts in its category over 30 days",
                phrase=Phrase("amounts at this kind of merchant that differ by {}", "A1", money),
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
