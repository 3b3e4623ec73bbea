"""Request-time features of many rows at once, in numpy.

`fraud.feature_row` computes the same for a single row; a property test holds the two, and
every batch size, to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud.entities import ENTITIES, VELOCITY_TTL, WINDOWS
from fraud.feature_list import DAY_AT, HOUR_AT, MOMENT_AT, OWN, TRANSACTION_FEATURES
from fraud.profiles import AMOUNT_AGAINST, USUAL_PLACE
from fraud.request import NO_LOCATION
from fraud.windows import TABLE_COUNT, Floats, Ints, WindowRead, read_windows

HORIZON_MS: Final = int(VELOCITY_TTL.total_seconds() * 1000)
#: The age of an entity counts up to this, so that it means the same however long the log is.
OLDEST_SECONDS: Final = 30 * 86_400.0
DAY_MS: Final = 86_400_000
EARTH_KM: Final = 6371.0088
_PLACES: Final = np.arange(len(ENTITIES), dtype=np.int64)
_MOMENTS: Final = slice(MOMENT_AT[0], None)

# Columns of `_wide`: what any entity may have.
_W, _M = len(WINDOWS), len(MOMENT_AT)
_MEAN: Final = 2 * _W
_STD: Final = _MEAN + _M
_DISTINCT: Final = _STD + _M
_LAST: Final = _DISTINCT + _M * TABLE_COUNT
_FIRST, _ZSCORE, _NEW = _LAST + 1, _LAST + 2, _LAST + 3
_KM: Final = _NEW + TABLE_COUNT
_SPEED: Final = _KM + 1
_WIDTH: Final = _SPEED + 1
#: Of all columns of all entities side by side, those that are features, in order.
_CHOSEN: Final = np.array(
    [
        place * _WIDTH + column
        for place, entity in enumerate(ENTITIES)
        for column in (
            *range(_DISTINCT),
            *range(_DISTINCT, _DISTINCT + _M * len(entity.counterparties)),
            _LAST, _FIRST, _ZSCORE,
            *range(_NEW, _NEW + len(entity.tracked)),
            *((_KM, _SPEED) if entity.located else ()),
        )
    ]
)  # fmt: skip
_OWN_END: Final = len(OWN)
_ENTITY_END: Final = _OWN_END + len(_CHOSEN)
#: Profiles that the amount and the counts are held against: by column, then by entity; and which
#: of them divides each of the five figures.
_COMPARED: Final = [
    f"{name}_{column}"
    for column in ("amount_mean_30d", "amount_std_30d", "amount_max_30d", "txn_count_30d")
    for name in AMOUNT_AGAINST
]
_BELOW: Final = np.array([1, 0, 2, 3, 3])
_LOCATED: Final = [entity.located for entity in ENTITIES].index(False)


def batch_features(
    states: Sequence[Sequence[bytes | None]], request: Mapping[str, Ints], profiles: Mapping[str, Floats]
) -> Floats:
    """`fraud.features.transaction_matrix` for any number of rows."""
    at_ms = request["event_ms"]
    rows = len(at_ms)
    by_place = np.zeros((len(ENTITIES), rows, TABLE_COUNT), dtype=np.int64)
    for place, entity in enumerate(ENTITIES):
        for index, name in enumerate(entity.tracked):
            by_place[place, :, index] = request[f"{name}_hash"]
    requested = by_place.reshape(-1, TABLE_COUNT)
    read = read_windows(
        [state for column in states for state in column],
        _PLACES.repeat(rows), _repeated(at_ms, len(ENTITIES)), requested, HORIZON_MS,
    )  # fmt: skip
    matrix = np.empty((rows, len(TRANSACTION_FEATURES)))
    _own(matrix, request)
    wide = _wide(read, requested, request).reshape(len(ENTITIES), rows, _WIDTH)
    matrix[:, _OWN_END:_ENTITY_END] = wide.swapaxes(0, 1).reshape(rows, len(ENTITIES) * _WIDTH)[:, _CHOSEN]
    _against(matrix[:, _ENTITY_END:-1], read, request["amount_reference"], profiles)
    matrix[:, -1] = from_usual(profiles, request["location"])
    return matrix


def _own(matrix: Floats, request: Mapping[str, Ints]) -> None:
    at_ms = request["event_ms"]
    hour = (at_ms % DAY_MS) / 3_600_000
    weekday = (at_ms // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    columns = (
        request["amount_reference"], request["channel_code"], request["category_code"],
        request["country_code"], request["currency_code"], hour, weekday, hour < 6, weekday >= 5,
        request["device_hash"] != 0, request["has_ip"], request["has_terminal"],
    )  # fmt: skip
    for index, values in enumerate(columns):
        matrix[:, index] = values


def _wide(read: WindowRead, requested: Ints, request: Mapping[str, Ints]) -> Floats:
    """Every column of every entity: (entities x rows, `_WIDTH`)."""
    states, rows = len(read.present), len(request["event_ms"])
    wide = np.empty((states, _WIDTH))
    wide[:, :_W] = read.count
    wide[:, _W:_MEAN] = read.total
    number = read.count[:, _MOMENTS]
    mean = ratio(read.total[:, _MOMENTS], number)
    deviation = np.sqrt(np.maximum(ratio(read.squares[:, _MOMENTS], number) - mean * mean, 0.0))
    wide[:, _MEAN:_STD] = mean
    wide[:, _STD:_DISTINCT] = deviation
    wide[:, _DISTINCT:_LAST] = read.distinct[:, :, _MOMENTS].reshape(states, _LAST - _DISTINCT)
    wide[:, _LAST] = read.since_last
    wide[:, _FIRST] = np.minimum(read.since_first, OLDEST_SECONDS)
    amounts = _repeated(request["amount_reference"], len(ENTITIES))
    wide[:, _ZSCORE] = ratio(amounts - mean[:, -1], deviation[:, -1])
    wide[:, _NEW:_KM] = np.where(requested != 0, 1.0 - read.seen, np.nan)
    located = slice(0, _LOCATED * rows)
    wide[located, _KM:] = travel(
        read.location[located], read.located_ms[located],
        _repeated(request["location"], _LOCATED), _repeated(request["event_ms"], _LOCATED),
    )  # fmt: skip
    wide[~read.present] = np.nan
    return wide


def _against(matrix: Floats, read: WindowRead, amount: Ints, profiles: Mapping[str, Floats]) -> None:
    rows, compared = len(amount), len(AMOUNT_AGAINST)
    known = np.concatenate([profiles[name] for name in _COMPARED]).reshape(4, compared, rows)
    mine = slice(0, compared * rows)
    count = np.where(read.present[mine, None], read.count[mine], np.nan).reshape(compared, rows, _W)
    above = np.empty((5, compared, rows))
    above[0] = amount - known[0]
    above[1:3] = amount
    above[3] = count[:, :, HOUR_AT] * 720.0
    above[4] = count[:, :, DAY_AT] * 30.0
    end = 5 * compared
    matrix[:, :end] = ratio(above, known[_BELOW]).transpose(2, 1, 0).reshape(rows, end)
    category = amount - profiles["merchant_category_amount_mean_30d"]
    matrix[:, end] = ratio(category, profiles["merchant_category_amount_std_30d"])


def _repeated(values: Ints, times: int) -> Ints:
    """`np.tile`, without its overhead."""
    return np.concatenate((values,) * times)


def ratio(above: Any, below: Floats) -> Floats:
    """`above / below`, NaN where there is nothing above 0 to divide by."""
    result = np.empty(below.shape)
    result.fill(np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def travel(here: Ints, here_ms: Floats, there: Ints, there_ms: Ints) -> Floats:
    """Great-circle kilometres (haversine) and km/h between packed locations: (rows, 2)."""
    degrees: NDArray[np.float64] = np.empty((4, len(here)))
    degrees[0], degrees[1] = here >> 32, there >> 32
    degrees[2], degrees[3] = (here << 32) >> 32, (there << 32) >> 32
    travelled = np.empty((len(here), 2))
    travelled[:, 0] = _kilometres(degrees / 1e6)
    travelled[:, 1] = travelled[:, 0] / ((there_ms - here_ms) / 3_600_000.0)
    travelled[np.isnan(here_ms) | (there == NO_LOCATION)] = np.nan
    return travelled


def from_usual(profiles: Mapping[str, Floats], there: Ints) -> Floats:
    """Kilometres from the customers' usual places to packed locations: (rows,)."""
    degrees: NDArray[np.float64] = np.empty((4, len(there)))
    degrees[0], degrees[2] = (profiles[name] for name in USUAL_PLACE)
    degrees[1], degrees[3] = (there >> 32) / 1e6, ((there << 32) >> 32) / 1e6
    away = _kilometres(degrees)
    away[there == NO_LOCATION] = np.nan
    return away


def _kilometres(degrees: Floats) -> Floats:
    """Great-circle distances by (latitude, latitude, longitude, longitude): (4, rows) to (rows,)."""
    angles = np.radians(degrees)
    sines = np.sin((angles[1::2] - angles[::2]) / 2)
    cosines = np.cos(angles[:2])
    half = sines[0] * sines[0] + cosines[0] * cosines[1] * (sines[1] * sines[1])
    kilometres: Floats = 2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0)))
    return kilometres


assert TRANSACTION_FEATURES[-1].name == "customer_km_from_usual_30d", "`batch_features` puts it there"
assert not any(entity.located for entity in ENTITIES[_LOCATED:]), "located entities come first"
assert tuple(entity.name for entity in ENTITIES[: len(AMOUNT_AGAINST)]) == AMOUNT_AGAINST
