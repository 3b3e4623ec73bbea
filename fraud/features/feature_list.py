"""The list of request-time features: their names, what they mean, and the model's vector.

Missing is NaN, never zero: an entity that the transaction does not name, or that no state is
known of, has NaN for all of its features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fraud.features.entities import ENTITIES, WINDOWS, Entity
from fraud.features.phrases import (
    CALLED,
    WHERE,
    WINDOW_WORDS,
    Phrase,
    channel,
    clock,
    compared,
    count,
    duration,
    first_of,
    is_one,
    money,
    positive,
    times,
    usual_rate,
    weekday,
)
from fraud.features.profiles import AMOUNT_AGAINST, PROFILE_FEATURES, SERVED_PROFILES, USUAL_PLACE


@dataclass(frozen=True, slots=True)
class Feature:
    """One request-time feature, a Float64; `entity` is None for the transaction's own.

    `phrase` is how it reads as a reason for a decision.
    """

    name: str
    meaning: str
    entity: str | None = None
    phrase: Phrase | None = None


MOMENTS: Final = ("1h", "24h")  # windows with means, deviations and distinct counts
MOMENT_AT: Final = tuple(index for index, window in enumerate(WINDOWS) if window.name in MOMENTS)
DAY_AT: Final = len(WINDOWS) - 1
HOUR_AT: Final = [window.name for window in WINDOWS].index("1h")


def entity_features(entity: Entity) -> list[Feature]:
    """The features that an entity's state gives, in order."""
    name = entity.name

    where = WHERE[name]
    month, mean = f"{name}_txn_count_30d", f"{name}_amount_mean_30d"

    def feature(suffix: str, meaning: str, phrase: Phrase) -> Feature:
        return Feature(f"{name}_{suffix}", meaning, name, phrase)

    def counted(w: str) -> Phrase:
        words = WINDOW_WORDS[w]
        return Phrase(
            f"{{}} purchases{where} in {words}", "V1", count, one=f"1 purchase{where} in {words}",
            usual=month, usually=usual_rate,
        )  # fmt: skip

    names = [window.name for window in WINDOWS]
    moments = [names[index] for index in MOMENT_AT]
    features = [
        feature(f"txn_count_{w}", f"transactions of the {name} in the last {w}", counted(w)) for w in names
    ]
    features += [
        feature(
            f"amount_sum_{w}", f"sum of its amounts in the last {w}",
            Phrase(f"{{}} spent{where} in {WINDOW_WORDS[w]}", "V1", money),
        )
        for w in names
    ]  # fmt: skip
    features += [
        feature(
            f"amount_mean_{w}", f"mean of its amounts in the last {w}",
            Phrase(f"purchases of {{}} on average{where} in {WINDOW_WORDS[w]}", "A1", money, usual=mean),
        )
        for w in moments
    ]  # fmt: skip
    features += [
        feature(
            f"amount_std_{w}", f"standard deviation of its amounts in the last {w}",
            Phrase(f"amounts{where} that differ by {{}} in {WINDOW_WORDS[w]}", "A1", money),
        )
        for w in moments
    ]  # fmt: skip
    features += [
        feature(
            f"distinct_{other}s_{w}", f"different {other}s in the last {w}",
            Phrase(
                f"{{}} different {CALLED[other]}s{where} in {WINDOW_WORDS[w]}", "V1", count,
                one=f"a single {CALLED[other]}{where} in {WINDOW_WORDS[w]}",
            ),
        )
        for other in entity.counterparties
        for w in moments
    ]  # fmt: skip
    features += [
        feature(
            "seconds_since_last_txn", f"seconds since the {name}'s last transaction",
            Phrase(f"last purchase{where} {{}} before", "V1", duration),
        ),
        feature(
            "seconds_since_first_txn", f"seconds since the {name}'s first known transaction, at most 30 days",
            Phrase(f"first known purchase{where} {{}} before", "H1", duration),
        ),
        feature(
            "amount_zscore_24h", "deviations of this amount from its mean of the last 24h",
            Phrase(f"amount {{}} the other amounts{where} of 24 hours", "A1", compared),
        ),
    ]  # fmt: skip
    features += [
        feature(
            f"new_{other}_24h", f"1 if it had nothing to do with this {other} in the last 24h",
            first_of(name, other, " in 24 hours"),
        )
        for other in entity.counterparties
    ]  # fmt: skip
    features += [
        feature(
            f"new_{habit}", f"1 if it did not use this {habit} in the last 30 days", first_of(name, habit)
        )
        for habit in entity.habits
    ]
    if entity.located:
        features += [
            feature(
                "km_from_last", f"kilometres from the {name}'s last location",
                Phrase(f"{{}} km from the last purchase{where}", "L1", count),
            ),
            feature(
                "speed_kmh", "speed needed to come here from there",
                Phrase(f"{{}} km/h from the last purchase{where} to this one", "L1"),
            ),
        ]  # fmt: skip
    return features


OWN: Final = (
    Feature("txn_amount", "amount in reference cents", phrase=Phrase("amount of {}", "A1", money)),
    Feature("txn_channel", "channel, as a category", phrase=Phrase("{}", "C1", channel)),
    Feature("txn_category", "merchant category, as a category", phrase=Phrase("kind of merchant", "C1")),
    Feature("txn_country", "country, as a category", phrase=Phrase("country of the purchase", "L1")),
    Feature("txn_currency", "currency, as a category", phrase=Phrase("currency of the purchase", "C1")),
    Feature("txn_hour", "hour of the day, UTC, with fraction", phrase=Phrase("at {} UTC", "T1", clock)),
    Feature("txn_weekday", "day of the week, UTC, Monday 0", phrase=Phrase("on a {}", "T1", weekday)),
    Feature(
        "txn_night", "1 between 0 and 6 o'clock UTC",
        phrase=Phrase("between midnight and 6 o'clock UTC", "T1", told=is_one),
    ),
    Feature(
        "txn_weekend", "1 on Saturday and Sunday, UTC", phrase=Phrase("on a weekend", "T1", told=is_one)
    ),
    Feature(
        "txn_has_device", "1 if a device is named", phrase=Phrase("made from a device", "C1", told=is_one)
    ),
    Feature(
        "txn_has_ip", "1 if an ip is named",
        phrase=Phrase("made from an internet address", "C1", told=is_one),
    ),
    Feature(
        "txn_has_terminal", "1 if a terminal is named",
        phrase=Phrase("made at a terminal", "C1", told=is_one),
    ),
)  # fmt: skip


def _against(name: str) -> tuple[Feature, ...]:
    """The amount and the rate held against the entity's own profile."""
    where = WHERE[name]
    return (
        Feature(
            f"{name}_amount_zscore_30d", f"deviations of this amount from the {name}'s 30-day mean", name,
            Phrase(f"amount {{}} what is usual{where}", "A1", compared),
        ),
        Feature(
            f"{name}_amount_ratio_30d", f"this amount over the {name}'s 30-day mean", name,
            Phrase(f"amount {{}} times the usual{where}", "A1", times),
        ),
        Feature(
            f"{name}_amount_of_max_30d", f"this amount over the {name}'s largest of 30 days", name,
            Phrase(f"amount {{}} times the largest{where} in 30 days", "A1", times),
        ),
        Feature(
            f"{name}_txn_rate_1h_30d", f"the {name}'s last hour over its 30-day hourly mean", name,
            Phrase(f"{{}} times as many purchases{where} in 1 hour as usual", "V1", times, told=positive),
        ),
        Feature(
            f"{name}_txn_rate_24h_30d", f"the {name}'s last 24 hours over its 30-day daily mean", name,
            Phrase(f"{{}} times as many purchases{where} in 24 hours as usual", "V1", times, told=positive),
        ),
    )  # fmt: skip


#: The amount, the rate and the place held against the entity's own profile.
AGAINST: Final = (
    *(feature for name in AMOUNT_AGAINST for feature in _against(name)),
    Feature(
        "merchant_category_amount_zscore_30d", "deviations from the category's 30-day mean", "merchant",
        Phrase("amount {} what is usual at this kind of merchant", "A1", compared),
    ),
    Feature(
        "customer_km_from_usual_30d", "kilometres from the customer's usual place of 30 days", "customer",
        Phrase("{} km from where the customer usually is", "L1", count),
    ),
)  # fmt: skip

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

_PROFILES: Final = tuple(feature for features in PROFILE_FEATURES.values() for feature in features)
#: How each feature reads as a reason for a decision; those that are never one are left out.
PHRASES: Final[dict[str, Phrase]] = {
    **{each.name: each.phrase for each in _PROFILES if each.phrase is not None},
    **{each.name: each.phrase for each in TRANSACTION_FEATURES if each.phrase is not None},
}
