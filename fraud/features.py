"""The request-time features: states, profiles and the transaction itself, as one row of numbers.

`transaction_matrix` is the one function behind serving, training and Feast's on-demand view.
Missing is NaN, never zero: an entity that the transaction does not name, or that no state is
known of, has NaN for all of its features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fraud.contract import CHANNELS, Transaction
from fraud.entities import ENTITIES, TRACKED_FIELDS, VELOCITY_TTL, WINDOWS, Entity
from fraud.money import MINOR_DIGITS
from fraud.observation import pack_location, stable_hash
from fraud.profiles import PROFILE_FEATURES, SERVED_PROFILES, ProfileFeature
from fraud.windows import Floats, Ints, WindowRead, read_windows

__all__ = [
    "CATEGORICAL", "PROFILE_FEATURES", "REQUEST_FIELDS", "SERVED_PROFILES", "TRANSACTION_FEATURES",
    "VECTOR", "Feature", "ProfileFeature", "on_demand", "request_columns", "request_row",
    "transaction_features", "transaction_matrix",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Feature:
    """One request-time feature, a Float64; `entity` is None for the transaction's own."""

    name: str
    meaning: str
    entity: str | None = None


#: No location, in a request: outside what `pack_location` gives.
NO_LOCATION: Final = -(1 << 63)
_HORIZON_MS: Final = int(VELOCITY_TTL.total_seconds() * 1000)
_MOMENTS: Final = ("1h", "24h")  # windows with means, deviations and distinct counts
_MOMENT_AT: Final = tuple(index for index, window in enumerate(WINDOWS) if window.name in _MOMENTS)
_DAY_AT: Final = len(WINDOWS) - 1
_HOUR_AT: Final = [window.name for window in WINDOWS].index("1h")
#: Entities whose own history an amount is held against.
_AMOUNT_AGAINST: Final = ("customer", "card", "merchant", "terminal")

#: The request source: one Int64 per field. Hashes are `stable_hash`, 0 where absent.
REQUEST_FIELDS: Final[dict[str, str]] = {
    "event_ms": "event time, milliseconds UTC",
    "amount_reference": "amount in reference cents",
    "channel_code": "index of the channel in the contract",
    "category_code": "merchant category code, or -1",
    "country_code": "country code, or -1",
    "currency_code": "index of the currency in alphabetical order",
    "location": "packed micro-degrees, or the smallest integer",
    "customer_hash": "hash of customer_id",
    "card_hash": "hash of card_id",
    "merchant_hash": "hash of merchant_id",
    "device_hash": "hash of device_id, 0 if absent",
    "country_hash": "hash of country, 0 if absent",
    "has_terminal": "1 if terminal_id is given",
    "has_ip": "1 if ip is given",
}

_CHANNEL_CODE: Final = {channel: code for code, channel in enumerate(CHANNELS)}
_CURRENCY_CODE: Final = {currency: code for code, currency in enumerate(sorted(MINOR_DIGITS))}


def _category_code(category: str | None) -> int:
    if category is None:
        return -1
    if category.isascii() and category.isdigit() and len(category) <= 4:
        return int(category)
    return 10_000 + (stable_hash(category) & 0xFFF)


def _country_code(country: str | None) -> int:
    return -1 if country is None else (ord(country[0]) - 65) * 26 + ord(country[1]) - 65


def _hash(value: str | None) -> int:
    return stable_hash(value) if value is not None else 0


def request_row(transaction: Transaction) -> dict[str, int]:
    """The request-source fields of one transaction."""
    located = transaction.latitude is not None and transaction.longitude is not None
    row = {
        "event_ms": transaction.event_ms,
        "amount_reference": transaction.amount_reference,
        "channel_code": _CHANNEL_CODE[transaction.channel],
        "category_code": _category_code(transaction.merchant_category),
        "country_code": _country_code(transaction.country),
        "currency_code": _CURRENCY_CODE[transaction.currency],
        "location": pack_location(transaction.latitude, transaction.longitude) if located else NO_LOCATION,  # type: ignore[arg-type]
    }
    for name, field in TRACKED_FIELDS.items():
        row[f"{name}_hash"] = _hash(getattr(transaction, field))
    row["has_terminal"] = int(transaction.terminal_id is not None)
    row["has_ip"] = int(transaction.ip is not None)
    return row


def request_columns(columns: Mapping[str, Sequence[Any]]) -> dict[str, Ints]:
    """The request-source fields of many transactions, from the lake's columns.

    `columns` maps the lake's names to equally long sequences: `event_timestamp` as int64
    microseconds (or numpy datetime64), strings or None, `latitude`/`longitude` floats or None.
    """

    def integers(values: Any) -> Ints:
        return np.fromiter(values, dtype=np.int64)

    times = np.asarray(columns["event_timestamp"])
    microseconds = times.astype("datetime64[us]").astype(np.int64) if times.dtype.kind == "M" else times.astype(np.int64)
    request = {
        "event_ms": microseconds // 1000,
        "amount_reference": np.asarray(columns["amount_reference"], dtype=np.int64),
        "channel_code": integers(_CHANNEL_CODE[value] for value in columns["channel"]),
        "category_code": integers(_category_code(value) for value in columns["merchant_category"]),
        "country_code": integers(_country_code(value) for value in columns["country"]),
        "currency_code": integers(_CURRENCY_CODE[value] for value in columns["currency"]),
        "location": integers(
            NO_LOCATION if latitude is None or longitude is None or latitude != latitude
            else pack_location(latitude, longitude)
            for latitude, longitude in zip(columns["latitude"], columns["longitude"], strict=True)
        ),
    }  # fmt: skip
    for name, field in TRACKED_FIELDS.items():
        request[f"{name}_hash"] = integers(_hash(value) for value in columns[field])
    request["has_terminal"] = integers(value is not None for value in columns["terminal_id"])
    request["has_ip"] = integers(value is not None for value in columns["ip"])
    return request


def _entity_features(entity: Entity) -> list[Feature]:
    name = entity.name

    def feature(suffix: str, meaning: str) -> Feature:
        return Feature(f"{name}_{suffix}", meaning, name)

    names = [window.name for window in WINDOWS]
    moments = [names[index] for index in _MOMENT_AT]
    features = [feature(f"txn_count_{w}", f"transactions of the {name} in the last {w}") for w in names]
    features += [feature(f"amount_sum_{w}", f"sum of its amounts in the last {w}") for w in names]
    features += [feature(f"amount_mean_{w}", f"mean of its amounts in the last {w}") for w in moments]
    features += [feature(f"amount_std_{w}", f"standard deviation of its amounts in the last {w}") for w in moments]
    features += [
        feature(f"distinct_{other}s_{w}", f"different {other}s in the last {w}")
        for other in entity.counterparties
        for w in moments
    ]
    features += [
        feature("seconds_since_last_txn", f"seconds since the {name}'s last transaction"),
        feature("seconds_since_first_txn", f"seconds since the {name}'s first known transaction"),
        feature("amount_zscore_24h", "deviations of this amount from its mean of the last 24h"),
    ]
    features += [
        feature(f"new_{other}_24h", f"1 if it had nothing to do with this {other} in the last 24h")
        for other in entity.counterparties
    ]
    features += [
        feature(f"new_{habit}", f"1 if it did not use this {habit} in the last 30 days") for habit in entity.habits
    ]
    if entity.located:
        features += [
            feature("km_from_last", f"kilometres from the {name}'s last location"),
            feature("speed_kmh", "speed needed to come here from there"),
        ]
    return features


_OWN: Final = (
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
_AGAINST: Final = tuple(
    feature
    for name in _AMOUNT_AGAINST
    for feature in (
        Feature(f"{name}_amount_zscore_30d", f"deviations of this amount from the {name}'s 30-day mean", name),
        Feature(f"{name}_amount_ratio_30d", f"this amount over the {name}'s 30-day mean", name),
        Feature(f"{name}_txn_rate_1h_30d", f"the {name}'s last hour over its 30-day hourly mean", name),
        Feature(f"{name}_txn_rate_24h_30d", f"the {name}'s last 24 hours over its 30-day daily mean", name),
    )
) + (
    Feature("merchant_category_amount_zscore_30d", "deviations from the category's 30-day mean", "merchant"),
)

#: What the on-demand view returns, in order.
TRANSACTION_FEATURES: Final[tuple[Feature, ...]] = (
    *_OWN,
    *(feature for entity in ENTITIES for feature in _entity_features(entity)),
    *_AGAINST,
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
        for name in _AMOUNT_AGAINST
        for column in ("amount_mean_30d", "amount_std_30d", "txn_count_30d")
    ),
    "merchant_category_amount_mean_30d",
    "merchant_category_amount_std_30d",
)

_PLACES: Final = np.arange(len(ENTITIES), dtype=np.int64)
_TABLE_COUNT: Final = max(len(entity.tracked) for entity in ENTITIES)
_DAY_MS: Final = 86_400_000
_EARTH_KM: Final = 6371.0088


def transaction_matrix(
    states: Sequence[Sequence[bytes | None]], request: Mapping[str, Ints], profiles: Mapping[str, Floats]
) -> Floats:
    """The request-time features of n transactions: (n, len(TRANSACTION_FEATURES)) float64.

    `states[place]` holds n packed states (or None) of the entity at `place` in `ENTITIES`,
    `request` the `REQUEST_FIELDS` and `profiles` the `PROFILE_INPUTS` (NaN: missing), each of
    length n. A row's result does not depend on the rows beside it.
    """
    at_ms = request["event_ms"]
    rows = len(at_ms)
    requested = np.zeros((len(ENTITIES), rows, _TABLE_COUNT), dtype=np.int64)
    for place, entity in enumerate(ENTITIES):
        for index, name in enumerate(entity.tracked):
            requested[place, :, index] = request[f"{name}_hash"]
    flat = [state for column in states for state in column]
    read = read_windows(
        flat, np.repeat(_PLACES, rows), np.tile(at_ms, len(ENTITIES)),
        requested.reshape(-1, _TABLE_COUNT), _HORIZON_MS,
    )  # fmt: skip
    matrix = np.empty((rows, len(TRANSACTION_FEATURES)))
    with np.errstate(divide="ignore", invalid="ignore"):
        column = _own_columns(matrix, request)
        for place, entity in enumerate(ENTITIES):
            mine = slice(place * rows, (place + 1) * rows)
            column = _entity_columns(matrix, column, entity, read, mine, request, requested[place])
        _against_columns(matrix, column, read, request, profiles)
    return matrix


def _own_columns(matrix: Floats, request: Mapping[str, Ints]) -> int:
    at_ms = request["event_ms"]
    hour = (at_ms % _DAY_MS) / 3_600_000
    weekday = (at_ms // _DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    columns = (
        request["amount_reference"], request["channel_code"], request["category_code"],
        request["country_code"], request["currency_code"], hour, weekday, hour < 6, weekday >= 5,
        request["device_hash"] != 0, request["has_ip"], request["has_terminal"],
    )  # fmt: skip
    for index, values in enumerate(columns):
        matrix[:, index] = values
    return len(columns)


def _entity_columns(
    matrix: Floats, column: int, entity: Entity, read: WindowRead, mine: slice,
    request: Mapping[str, Ints], requested: Ints,
) -> int:  # fmt: skip
    first = column
    count, total = read.count[mine], read.total[mine]
    width = len(WINDOWS)
    matrix[:, column : column + width] = count
    matrix[:, column + width : column + 2 * width] = total
    column += 2 * width
    moments = slice(_MOMENT_AT[0], None)
    number = count[:, moments]
    mean = total[:, moments] / number
    deviation = np.sqrt(np.maximum(read.squares[mine][:, moments] / number - mean * mean, 0.0))
    width = len(_MOMENT_AT)
    matrix[:, column : column + width] = mean
    matrix[:, column + width : column + 2 * width] = deviation
    column += 2 * width
    for index in range(len(entity.counterparties)):
        matrix[:, column : column + width] = read.distinct[mine, index, moments]
        column += width
    matrix[:, column] = read.since_last[mine]
    matrix[:, column + 1] = read.since_first[mine]
    amount = request["amount_reference"]
    matrix[:, column + 2] = _ratio(amount - mean[:, -1], deviation[:, -1])
    column += 3
    for index in range(len(entity.tracked)):
        matrix[:, column] = np.where(requested[:, index] != 0, 1.0 - read.seen[mine, index], np.nan)
        column += 1
    if entity.located:
        kilometres = _distance(read.location[mine], request["location"])
        kilometres[np.isnan(read.located_ms[mine]) | (request["location"] == NO_LOCATION)] = np.nan
        hours = (request["event_ms"] - read.located_ms[mine]) / 3_600_000.0
        matrix[:, column] = kilometres
        matrix[:, column + 1] = kilometres / hours
        column += 2
    matrix[~read.present[mine], first:column] = np.nan
    return column


def _against_columns(
    matrix: Floats, column: int, read: WindowRead, request: Mapping[str, Ints], profiles: Mapping[str, Floats]
) -> None:
    amount = request["amount_reference"]
    rows = len(amount)
    for place, name in enumerate(_AMOUNT_AGAINST):
        mine = slice(place * rows, (place + 1) * rows)
        mean, deviation = profiles[f"{name}_amount_mean_30d"], profiles[f"{name}_amount_std_30d"]
        month = profiles[f"{name}_txn_count_30d"]
        present = np.where(read.present[mine], 1.0, np.nan)
        matrix[:, column] = _ratio(amount - mean, deviation)
        matrix[:, column + 1] = _ratio(amount, mean)
        matrix[:, column + 2] = _ratio(read.count[mine, _HOUR_AT] * present * 720.0, month)
        matrix[:, column + 3] = _ratio(read.count[mine, _DAY_AT] * present * 30.0, month)
        column += 4
    mean = profiles["merchant_category_amount_mean_30d"]
    matrix[:, column] = _ratio(amount - mean, profiles["merchant_category_amount_std_30d"])


def _ratio(above: Any, below: Floats) -> Floats:
    """`above / below`, NaN where there is nothing to divide by."""
    return np.where(below > 0, above / below, np.nan)


def _distance(here: Ints, there: Ints) -> Floats:
    """Great-circle kilometres between packed locations (haversine)."""
    latitudes = [np.radians((place >> 32) / 1e6) for place in (here, there)]
    longitudes = [np.radians(((place << 32) >> 32) / 1e6) for place in (here, there)]
    half = np.sin((latitudes[1] - latitudes[0]) / 2) ** 2
    half += np.cos(latitudes[0]) * np.cos(latitudes[1]) * np.sin((longitudes[1] - longitudes[0]) / 2) ** 2
    return np.asarray(2 * _EARTH_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0))))


def transaction_features(
    states: Sequence[Sequence[bytes | None]], request: Mapping[str, Ints], profiles: Mapping[str, Floats]
) -> dict[str, Floats]:
    """`transaction_matrix` as named columns."""
    matrix = transaction_matrix(states, request, profiles)
    return {feature.name: matrix[:, index] for index, feature in enumerate(TRANSACTION_FEATURES)}


def on_demand(inputs: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
    """The body of Feast's on-demand view: lists of inputs in, lists of features out.

    Inputs are the entities' `<entity>_state` bytes, the `REQUEST_FIELDS` and the
    `PROFILE_INPUTS`; None and unreadable states count as missing, since Feast calls this with
    dummy values when it applies the repository.
    """
    rows = max(len(inputs[name]) for name in REQUEST_FIELDS)

    def column(name: str) -> Sequence[Any]:
        values = inputs.get(name)
        return values if values is not None and len(values) == rows else [None] * rows

    request = {
        name: np.array([0 if value is None else value for value in column(name)], dtype=np.int64)
        for name in REQUEST_FIELDS
    }
    profiles = {
        name: np.array([np.nan if value is None else value for value in column(name)], dtype=np.float64)
        for name in PROFILE_INPUTS
    }
    states = [
        [value if isinstance(value, bytes) else None for value in column(entity.state_feature)]
        for entity in ENTITIES
    ]
    return {name: values.tolist() for name, values in transaction_features(states, request, profiles).items()}
