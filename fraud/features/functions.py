"""The functions of the platform's own views by name, and the codes by which compiled loops know them."""

from __future__ import annotations

from typing import Final

from fraud.declared.batch import FUNCTIONS

(
    COUNT, SUM, MEAN, STD, ZSCORE, DISTINCT, NEW, SINCE_LAST, SINCE_FIRST, DISTANCE, SPEED,
    VALUE, PRESENT_FIELD, HOUR, WEEKDAY, NIGHT, WEEKEND, OVER, DEVIATION, RATE, AWAY,
) = range(21)  # fmt: skip
#: Functions of velocity views, and of the request, by name.
OF_STATES: Final = {
    "count": COUNT, "sum": SUM, "mean": MEAN, "std": STD, "zscore": ZSCORE, "count_distinct": DISTINCT,
    "new": NEW, "seconds_since_last": SINCE_LAST, "seconds_since_first": SINCE_FIRST, "distance": DISTANCE,
    "speed": SPEED,
}  # fmt: skip
OF_REQUESTS: Final = {
    "value": VALUE, "code": VALUE, "present": PRESENT_FIELD, "hour": HOUR, "weekday": WEEKDAY, "night": NIGHT,
    "weekend": WEEKEND, "over": OVER, "deviation": DEVIATION, "rate": RATE, "away": AWAY,
}  # fmt: skip
#: Fields of the transaction that features are made of, as the request has them.
FIELDS: Final = {
    "amount": "amount_reference", "channel": "channel_code", "merchant_category": "category_code",
    "country": "country_code", "currency": "currency_code", "device_id": "device_hash", "ip": "has_ip",
    "terminal_id": "has_terminal", "event_time": "event_ms",
}  # fmt: skip
#: Functions of batch views; the last ones compare merchants of one category, which only their own view does.
OF_BATCH: Final = FUNCTIONS | {"category_share", "category_mean", "category_std"}
