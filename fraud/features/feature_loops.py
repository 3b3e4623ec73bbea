"""The request-time features of every row, in one loop that numba compiles."""

from __future__ import annotations

from math import nan, sqrt
from typing import Final

import numpy as np

from fraud.features.entities import ENTITIES, PERSONAL, TRACKED_FIELDS, VELOCITY_TTL, WINDOWS
from fraud.features.feature_list import (
    DAY_AT,
    HOUR_AT,
    MOMENT_AT,
    PROFILE_INPUTS,
    entity_features,
)
from fraud.features.profiles import AMOUNT_AGAINST, USUAL_PLACE
from fraud.features.request import REQUEST_FIELDS
from fraud.state.last_seen import NEVER
from fraud.state.observation import NO_LOCATION
from fraud.state.places import great_circle_km
from fraud.state.window_loops import (
    LOCATED,
    PRESENT,
    TABLE_COUNT,
    Figures,
    Floats,
    Ints,
    counted_at,
    new_figures,
    read_state,
    seconds_since,
    table_is_full,
    used_within,
)
from machine.compiled import compiled

HORIZON_MS: Final = int(VELOCITY_TTL.total_seconds() * 1000)
#: The age of an entity counts up to this, so that it means the same however long the log is.
OLDEST_SECONDS: Final = 30 * 86_400.0
DAY_MS: Final = 86_400_000

# Columns of the requests.
_FIELDS: Final = tuple(REQUEST_FIELDS)
_AT, _AMOUNT, _LOCATION = (_FIELDS.index(name) for name in ("event_ms", "amount_reference", "location"))
_LATENESS, _OWN = _FIELDS.index("lateness_ms"), _FIELDS.index("transaction_key")
_CHANNEL, _CATEGORY, _COUNTRY, _CURRENCY = (
    _FIELDS.index(f"{name}_code") for name in ("channel", "category", "country", "currency")
)
_DEVICE: Final = _FIELDS.index("device_hash")
_HAS_IP, _HAS_TERMINAL = _FIELDS.index("has_ip"), _FIELDS.index("has_terminal")
#: By entity, the columns of the hashes that its tables are asked for.
_TRACKED: Final = tuple(
    tuple(_FIELDS.index(f"{name}_hash") for name in entity.tracked)
    + (-1,) * (TABLE_COUNT - len(entity.tracked))
    for entity in ENTITIES
)
# Columns of the profiles: four per entity that the amount is held against, two of the category, two of
# the customer's usual place.
_COMPARED: Final = len(AMOUNT_AGAINST)
_CATEGORY_MEAN: Final = 4 * _COMPARED
_LATITUDE, _LONGITUDE = (PROFILE_INPUTS.index(name) for name in USUAL_PLACE)
# What entities differ in.
_ENTITIES: Final = len(ENTITIES)
_COUNTERPARTIES: Final = tuple(len(entity.counterparties) for entity in ENTITIES)
_TABLES: Final = tuple(len(entity.tracked) for entity in ENTITIES)
_WIDTHS: Final = tuple(len(entity_features(entity)) for entity in ENTITIES)
_WINDOWS: Final = len(WINDOWS)
_PLACES: Final = {entity.name: place for place, entity in enumerate(ENTITIES)}
#: By entity and counterparty, the place of the entity on the other side of the pair, and its table of this
#: one; -1 where it keeps none.
_PARTNERS: Final = tuple(
    tuple(
        _PLACES[name] if entity.name in ENTITIES[_PLACES[name]].tracked else -1
        for name in (*entity.counterparties, *[entity.name] * (TABLE_COUNT - len(entity.counterparties)))
    )
    for entity in ENTITIES
)
_PARTNER_TABLES: Final = tuple(
    tuple(ENTITIES[other].tracked.index(entity.name) if other >= 0 else -1 for other in _PARTNERS[place])
    for place, entity in enumerate(ENTITIES)
)
#: By entity, the column of the hash of its own value; and where its novelty begins among its features.
_HASHES: Final = tuple(
    _FIELDS.index(f"{entity.name}_hash") if entity.name in TRACKED_FIELDS else -1 for entity in ENTITIES
)
_NEW_AT: Final = tuple(
    [feature.name.startswith(f"{entity.name}_new_") for feature in entity_features(entity)].index(True)
    for entity in ENTITIES
)
_PERSONAL: Final = tuple(entity.name in PERSONAL for entity in ENTITIES)

assert tuple(TRACKED_FIELDS) == tuple(
    name.removesuffix("_hash") for name in _FIELDS if name.endswith("_hash")
)
assert PROFILE_INPUTS[_CATEGORY_MEAN : _CATEGORY_MEAN + 2] == (
    "merchant_category_amount_mean_30d", "merchant_category_amount_std_30d",
)  # fmt: skip
assert tuple(entity.name for entity in ENTITIES[:_COMPARED]) == AMOUNT_AGAINST


@compiled
def fill_features(words: Ints, ends: Ints, requests: Ints, profiles: Floats, matrix: Floats) -> None:
    """Compute the features of every row into `matrix`: (rows, len(TRANSACTION_FEATURES)).

    The state of row r's entity at place p stands in `words[ends[i] : ends[i + 1]]` for i = p * rows + r.
    `requests` has the columns of `REQUEST_FIELDS` and `profiles` those of `PROFILE_INPUTS`. A transaction
    counts no earlier than what its customer and its card did before: where that moves its time, `requests`
    is changed to the time that counts.
    """
    rows = len(requests)
    figures = new_figures()
    asked = np.empty(TABLE_COUNT, dtype=np.int64)
    counts = np.empty((_ENTITIES, 2))
    for row in range(rows):
        request, known, out = requests[row], profiles[row], matrix[row]
        at_ms = request[_AT]
        for place in range(_ENTITIES):
            if _PERSONAL[place]:
                begin = ends[place * rows + row]
                size = ends[place * rows + row + 1] - begin
                at_ms = max(at_ms, counted_at(words, begin, size, place, request[_AT], request[_OWN]))
        request[_LATENESS] += at_ms - request[_AT]
        request[_AT] = at_ms
        column = _own(request, out)
        for place in range(_ENTITIES):
            for table in range(TABLE_COUNT):
                field = _TRACKED[place][table]
                asked[table] = request[field] if field >= 0 else 0
            begin = ends[place * rows + row]
            size = ends[place * rows + row + 1] - begin
            found, last, first, where, located = read_state(
                words, begin, size, place, request[_AT], request[_OWN], asked, HORIZON_MS, figures
            )
            if found == PRESENT:
                _entity(place, request, asked, figures, last, first, where, located, out, column)
                _ask_partners(words, ends, row, rows, place, request, asked, out, column)
                counts[place, 0] = figures.counts[HOUR_AT]
                counts[place, 1] = figures.counts[DAY_AT]
            else:
                out[column : column + _WIDTHS[place]] = nan
                counts[place] = nan
            column += _WIDTHS[place]
        _against(request, known, counts, out, column)


@compiled
def _ask_partners(
    words: Ints, ends: Ints, row: int, rows: int, place: int, request: Ints, asked: Ints, out: Floats,
    column: int,
) -> None:  # fmt: skip
    """Ask the other side of a pair whose own table is full: that this card is new to this merchant and that
    this merchant is new to this card are one fact, and of the two the one with few partners remembers it."""
    start = ends[place * rows + row]
    for table in range(_COUNTERPARTIES[place]):
        partner = _PARTNERS[place][table]
        if partner < 0 or asked[table] == 0 or not table_is_full(words, start, place, table):
            continue
        novelty = column + _NEW_AT[place] + table
        if out[novelty] == 1.0:
            begin = ends[partner * rows + row]
            size = ends[partner * rows + row + 1] - begin
            own = request[_HASHES[place]]
            used = used_within(
                words,
                begin,
                size,
                partner,
                _PARTNER_TABLES[place][table],
                own,
                request[_AT],
                request[_OWN],
                DAY_MS,
            )
            if used == 1:
                out[novelty] = 0.0


@compiled
def _own(request: Ints, out: Floats) -> int:
    at_ms = request[_AT]
    hour = (at_ms % DAY_MS) / 3_600_000
    weekday = (at_ms // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    out[0] = request[_AMOUNT]
    out[1] = request[_CHANNEL]
    out[2] = request[_CATEGORY]
    out[3] = request[_COUNTRY]
    out[4] = request[_CURRENCY]
    out[5] = hour
    out[6] = weekday
    out[7] = hour < 6
    out[8] = weekday >= 5
    out[9] = request[_DEVICE] != 0
    out[10] = request[_HAS_IP]
    out[11] = request[_HAS_TERMINAL]
    return 12


@compiled
def _entity(
    place: int, request: Ints, asked: Ints, figures: Figures, last: int, first: int, where: int, located: int,
    out: Floats, column: int,
) -> None:  # fmt: skip
    at_ms = request[_AT]
    out[column : column + _WINDOWS] = figures.counts
    column += _WINDOWS
    out[column : column + _WINDOWS] = figures.totals
    column += _WINDOWS
    mean = deviation = nan
    for moment in range(len(MOMENT_AT)):
        window = MOMENT_AT[moment]
        number = figures.counts[window]
        mean = ratio(figures.totals[window], number)
        variance = ratio(figures.squares[window], number) - mean * mean
        deviation = 0.0 if variance < 0 else sqrt(variance)
        out[column + moment] = mean
        out[column + len(MOMENT_AT) + moment] = deviation
    column += 2 * len(MOMENT_AT)
    for table in range(_COUNTERPARTIES[place]):
        for moment in range(len(MOMENT_AT)):
            out[column] = figures.distinct[table, MOMENT_AT[moment]]
            column += 1
    out[column] = seconds_since(at_ms, last)
    age = seconds_since(at_ms, first)
    out[column + 1] = OLDEST_SECONDS if age > OLDEST_SECONDS else age
    out[column + 2] = ratio(request[_AMOUNT] - mean, deviation)
    column += 3
    for table in range(_TABLES[place]):
        out[column] = 1.0 - figures.seen[table] if asked[table] != 0 else nan
        column += 1
    if LOCATED[place]:
        away = nan
        if located != NEVER and request[_LOCATION] != NO_LOCATION:
            latitude, longitude = _degrees(where)
            away = _kilometres(latitude, longitude, request[_LOCATION])
        out[column] = away
        # Between the moments at which it was in both places, whichever came first.
        apart = max(abs(at_ms - request[_LATENESS] - located), 1)
        out[column + 1] = away / (apart / 3_600_000.0)


@compiled
def _against(request: Ints, known: Floats, counts: Floats, out: Floats, column: int) -> None:
    """The amount, the rate and the place held against the entity's own profile."""
    amount = request[_AMOUNT]
    for place in range(_COMPARED):
        mean, deviation = known[4 * place], known[4 * place + 1]
        most, month = known[4 * place + 2], known[4 * place + 3]
        out[column] = ratio(amount - mean, deviation)
        out[column + 1] = ratio(amount, mean)
        out[column + 2] = ratio(amount, most)
        out[column + 3] = ratio(counts[place, 0] * 720.0, month)
        out[column + 4] = ratio(counts[place, 1] * 30.0, month)
        column += 5
    out[column] = ratio(amount - known[_CATEGORY_MEAN], known[_CATEGORY_MEAN + 1])
    away = nan
    if request[_LOCATION] != NO_LOCATION:
        away = _kilometres(known[_LATITUDE], known[_LONGITUDE], request[_LOCATION])
    out[column + 1] = away


@compiled
def ratio(above: float, below: float) -> float:
    """`above / below`, NaN where there is nothing above 0 to divide by."""
    return above / below if below > 0 else nan


@compiled
def _degrees(packed: int) -> tuple[float, float]:
    """Latitude and longitude of a packed location."""
    return (packed >> 32) / 1e6, ((packed << 32) >> 32) / 1e6


@compiled
def _kilometres(latitude: float, longitude: float, there: int) -> float:
    """Great-circle distance (haversine) from degrees to a packed location."""
    to_latitude, to_longitude = _degrees(there)
    return great_circle_km(latitude, longitude, to_latitude, to_longitude)
