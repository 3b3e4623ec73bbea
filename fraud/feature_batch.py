"""Request-time features of many rows at once, in numpy.

`fraud.feature_row` computes the same for a single row; a property test holds the two, and
every batch size, to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from fraud.entities import ENTITIES, TRACKED_FIELDS, VELOCITY_TTL, WINDOWS
from fraud.feature_list import DAY_AT, HOUR_AT, MOMENT_AT, OWN, TRANSACTION_FEATURES
from fraud.observation import NO_LOCATION
from fraud.profiles import AMOUNT_AGAINST, USUAL_PLACE
from fraud.windows import TABLE_COUNT, Floats, Ints, WindowRead, read_windows

HORIZON_MS: Final = int(VELOCITY_TTL.total_seconds() * 1000)
#: The age of an entity counts up to this, so that it means the same however long the log is.
OLDEST_SECONDS: Final = 30 * 86_400.0
DAY_MS: Final = 86_400_000
EARTH_KM: Final = 6371.0088
_PLACES: Final = np.arange(len(ENTITIES), dtype=np.int64)
_MOMENTS: Final = slice(MOMENT_AT[0], None)
#: Request fields with the hashes that last-seen tables are asked for, and by entity and table which of
#: them; the last is none.
_HASHES: Final = tuple(f"{name}_hash" for name in TRACKED_FIELDS)
_TRACKED: Final = np.array(
    [
        [_HASHES.index(f"{name}_hash") for name in entity.tracked]
        + [len(_HASHES)] * (TABLE_COUNT - len(entity.tracked))
        for entity in ENTITIES
    ]
)

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
    hashes = np.zeros((rows, len(_HASHES) + 1), dtype=np.int64)
    for index, name in enumerate(_HASHES):
        hashes[:, index] = request[name]
    requested = hashes[:, _TRACKED].swapaxes(0, 1).reshape(-1, TABLE_COUNT)
    read = read_windows(
        [state for column in states for state in column],
        _PLACES.repeat(rows), _repeated(at_ms, len(ENTITIES)), requested, HORIZON_MS,
    )  # fmt: skip
    matrix = np.empty((rows, len(TRANSACTION_FEATURES)))
    _own(matrix, request)
    travelled, matrix[:, -1] = _travel(read, request, profiles)
    wide = _wide(read, requested, request["amount_reference"], travelled)
    by_row = wide.reshape(len(ENTITIES), rows, _WIDTH).swapaxes(0, 1)
    matrix[:, _OWN_END:_ENTITY_END] = by_row.reshape(rows, len(ENTITIES) * _WIDTH).take(_CHOSEN, axis=1)
    _against(matrix[:, _ENTITY_END:-1], read, request["amount_reference"], profiles)
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


def _wide(read: WindowRead, requested: Ints, amount: Ints, travelled: Floats) -> Floats:
    """Every column of every entity: (entities x rows, `_WIDTH`)."""
    states = len(read.present)
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
    wide[:, _ZSCORE] = ratio(_repeated(amount, len(ENTITIES)) - mean[:, -1], deviation[:, -1])
    wide[:, _NEW:_KM] = np.where(requested != 0, 1.0 - read.seen, np.nan)
    wide[: len(travelled), _KM:] = travelled
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
    result: Floats = above / np.where(below > 0, below, np.nan)
    return result


def _travel(
    read: WindowRead, request: Mapping[str, Ints], profiles: Mapping[str, Floats]
) -> tuple[Floats, Floats]:
    """Great-circle kilometres and km/h from where located entities were last: (located x rows, 2);
    and kilometres from the customers' usual places: (rows,)."""
    there = request["location"]
    rows = len(there)
    mine = slice(0, _LOCATED * rows)
    here = read.location[mine].reshape(_LOCATED, rows)
    here_ms = read.located_ms[mine].reshape(_LOCATED, rows)
    degrees = np.zeros((4, _LOCATED + 1, rows))
    degrees[0, :-1], degrees[1] = here >> 32, there >> 32
    degrees[2, :-1], degrees[3] = (here << 32) >> 32, (there << 32) >> 32
    degrees /= 1e6
    degrees[0, -1], degrees[2, -1] = (profiles[name] for name in USUAL_PLACE)
    away = _kilometres(degrees)
    away[:, there == NO_LOCATION] = np.nan
    travelled = np.empty((_LOCATED, rows, 2))
    travelled[:, :, 0] = np.where(np.isnan(here_ms), np.nan, away[:-1])
    travelled[:, :, 1] = travelled[:, :, 0] / ((request["event_ms"] - here_ms) / 3_600_000.0)
    return travelled.reshape(-1, 2), away[-1]


def _kilometres(degrees: Floats) -> Floats:
    """Great-circle distances (haversine) by (latitude, latitude, longitude, longitude): (4, ...) to (...)."""
    angles = np.radians(degrees)
    sines = np.sin((angles[1::2] - angles[::2]) / 2)
    cosines = np.cos(angles[:2])
    half = sines[0] * sines[0] + cosines[0] * cosines[1] * (sines[1] * sines[1])
    kilometres: Floats = 2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0)))
    return kilometres


assert TRANSACTION_FEATURES[-1].name == "customer_km_from_usual_30d", "`batch_features` puts it there"
assert not any(entity.located for entity in ENTITIES[_LOCATED:]), "located entities come first"
assert tuple(entity.name for entity in ENTITIES[: len(AMOUNT_AGAINST)]) == AMOUNT_AGAINST
