"""Features made from the transaction itself, alone or held against its entities' history, as declarations.

A figure names its function (`fraud.features.feature_loops`) and what it looks at: fields of the transaction,
figures of velocity views, columns of profiles.
"""

from __future__ import annotations

from typing import Final

from feature_repo.words import Word, figure

#: Of the transaction alone.
ALONE: Final = [
    figure("txn_amount", "value", "amount", meaning="amount in reference cents"),
    figure("txn_channel", "code", "channel", meaning="channel, as a category"),
    figure("txn_category", "code", "merchant_category", meaning="merchant category, as a category"),
    figure("txn_country", "code", "country", meaning="country, as a category"),
    figure("txn_currency", "code", "currency", meaning="currency, as a category"),
    figure("txn_hour", "hour", "event_time", meaning="hour of the day, UTC, with fraction"),
    figure("txn_weekday", "weekday", "event_time", meaning="day of the week, UTC, Monday 0"),
    figure("txn_night", "night", "event_time", meaning="1 between 0 and 6 o'clock UTC"),
    figure("txn_weekend", "weekend", "event_time", meaning="1 on Saturday and Sunday, UTC"),
    figure("txn_has_device", "present", "device_id", meaning="1 if a device is named"),
    figure("txn_has_ip", "present", "ip", meaning="1 if an ip is named"),
    figure("txn_has_terminal", "present", "terminal_id", meaning="1 if a terminal is named"),
]


def _against(of: str) -> list[Word]:
    """The amount and the rate held against the entity's own profile."""
    mean, std, most, count = (
        f"{of}_{column}_30d" for column in ("amount_mean", "amount_std", "amount_max", "txn_count")
    )
    return [
        figure(f"{of}_amount_zscore_30d", "deviation", mean, std,
               meaning=f"deviations of this amount from the {of}'s 30-day mean"),
        figure(f"{of}_amount_ratio_30d", "over", mean, meaning=f"this amount over the {of}'s 30-day mean"),
        figure(f"{of}_amount_of_max_30d", "over", most,
               meaning=f"this amount over the {of}'s largest of 30 days"),
        figure(f"{of}_txn_rate_1h_30d", "rate", f"{of}_txn_count_1h", count,
               meaning=f"the {of}'s last hour over its 30-day hourly mean"),
        figure(f"{of}_txn_rate_24h_30d", "rate", f"{of}_txn_count_24h", count,
               meaning=f"the {of}'s last 24 hours over its 30-day daily mean"),
    ]  # fmt: skip


#: Held against history.
AGAINST: Final = [
    *[word for of in ("customer", "card", "merchant", "terminal") for word in _against(of)],
    figure("merchant_category_amount_zscore_30d", "deviation",
           "merchant_category_amount_mean_30d", "merchant_category_amount_std_30d",
           meaning="deviations from the category's 30-day mean"),
    figure("customer_km_from_usual_30d", "away",
           "customer_usual_latitude_30d", "customer_usual_longitude_30d",
           meaning="kilometres from the customer's usual place of 30 days"),
]  # fmt: skip
