"""The list of request-time features: their names, what they mean, and the model's vector.

Missing is NaN, never zero: an entity that the transaction does not name, or that no state is
known of, has NaN for all of its features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fraud.features.entities import ENTITIES, WINDOWS, Entity
from fraud.features.profiles import AMOUNT_AGAINST, SERVED_PROFILES, USUAL_PLACE


@dataclass(frozen=True, slots=True)
class Feature:
    """One request-time feature, a Float64; `entity` is None for the transaction's own."""

    name: str
    meaning: str
    entity: str | None = None


MOMENTS: Final = ("1h", "24h")  # windows with means, deviations and distinct counts
MOMENT_AT: Final = tuple(index for index, window in enumerate(WINDOWS) if window.name in MOMENTS)
DAY_AT: Final = len(WINDOWS) - 1
HOUR_AT: Final = [window.name for window in WINDOWS].index("1h")


def entity_features(entity: Entity) -> list[Feature]:
    """The features that an entity's state gives, in order."""
    name = entity.name

    def feature(suffix: str, meaning: str) -> Feature:
        return Feature(f"{name}_{suffix}", meaning, name)

    names = [window.name for window in WINDOWS]
    moments = [names[index] for index in MOMENT_AT]
    features = [feature(f"txn_count_{w}", f"transactions of the {name} in the last {w}") for w in names]
    features += [feature(f"amount_sum_{w}", f"sum of its amounts in the last {w}") for w in names]
    features += [feature(f"amount_mean_{w}", f"mean of its amounts in the last {w}") for w in moments]
    features += [
        feature(f"amount_std_{w}", f"standard deviation of its amounts in the last {w}") for w in moments
    ]
    features += [
        feature(f"distinct_{other}s_{w}", f"different {other}s in the last {w}")
        for other in entity.counterparties
        for w in moments
    ]
    features += [
        feature("seconds_since_last_txn", f"seconds since the {name}'s last transaction"),
        feature(
            "seconds_since_first_txn", f"seconds since the {name}'s first known transaction, at most 30 days"
        ),
        feature("amount_zscore_24h", "deviations of this amount from its mean of the last 24h"),
    ]
    features += [
        feature(f"new_{other}_24h", f"1 if it had nothing to do with this {other} in the last 24h")
        for other in entity.counterparties
    ]
    features += [
        feature(f"new_{habit}", f"1 if it did not use this {habit} in the last 30 days")
        for habit in entity.habits
    ]
    if entity.located:
        features += [
            feature("km_from_last", f"kilometres from the {name}'s last location"),
            feature("speed_kmh", "speed needed to come here from there"),
        ]
    return features


OWN: Final = (
    Feature("txn_amount", "amount in reference cents"),
    Feature("txn_channel", "channel, as a category"),
    Feature("txn_category", "merchant category, as a category"),
    Feature("txn_country", "country, as a category"),
    Feature("txn_currency", "currency, as a category"),
    Feature("txn_hour", "hour of the day, UTC, with fraction"),
    Feature("txn_weekday", "day of the week, UTC, Monday 0"),
    Feature("txn_night", "1 between 0 and 6 o'clock UTC"),
    Feature("txn_weekend", "1 on Saturday and Sunday, UTC"),
    Feature("txn_has_device", "1 if a device is named"),
    Feature("txn_has_ip", "1 if an ip is named"),
    Feature("txn_has_terminal", "1 if a terminal is named"),
)
#: The amount, the rate and the place held against the entity's own profile.
AGAINST: Final = (
    *(
        feature
        for name in AMOUNT_AGAINST
        for feature in (
            Feature(
                f"{name}_amount_zscore_30d", f"deviations of this amount from the {name}'s 30-day mean", name
            ),
            Feature(f"{name}_amount_ratio_30d", f"this amount over the {name}'s 30-day mean", name),
            Feature(f"{name}_amount_of_max_30d", f"this amount over the {name}'s largest of 30 days", name),
            Feature(f"{name}_txn_rate_1h_30d", f"the {name}'s last hour over its 30-day hourly mean", name),
            Feature(
                f"{name}_txn_rate_24h_30d", f"the {name}'s last 24 hours over its 30-day daily mean", name
            ),
        )
    ),
    Feature("merchant_category_amount_zscore_30d", "deviations from the category's 30-day mean", "merchant"),
    Feature(
        "customer_km_from_usual_30d", "kilometres from the customer's usual place of 30 days", "customer"
    ),
)

#: What the on-demand view returns, in order.
TRANSACTION_FEATURES: Final[tuple[Feature, ...]] = (
    *OWN,
    *(feature for entity in ENTITIES for feature in entity_features(entity)),
    *AGAINST,
)
#: Features that are codes of categories, for the model.
CATEGORICAL: Final = ("txn_channel", "txn_category", "txn_country", "txn_currency")

#: The model's row: names in order.
VECTOR: Final[tuple[str, ...]] = (
    *(name for entity in ENTITIES for name in SERVED_PROFILES[entity.name]),
    *(feature.name for feature in TRANSACTION_FEATURES),
)

#: Profile columns that the request-time features need.
PROFILE_INPUTS: Final[tuple[str, ...]] = (
    *(
        f"{name}_{column}"
        for name in AMOUNT_AGAINST
        for column in ("amount_mean_30d", "amount_std_30d", "amount_max_30d", "txn_count_30d")
    ),
    "merchant_category_amount_mean_30d",
    "merchant_category_amount_std_30d",
    *USUAL_PLACE,
)
