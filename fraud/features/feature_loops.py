"""The request-time features of every row, in one loop that numba compiles.

What it computes is a table of operations (`operations`), one per declared feature: a code, what it looks at,
and a factor. Features stand in `matrix` in the order of the table.
"""

from __future__ import annotations

from math import nan, sqrt
from typing import Final

import numpy as np

from fraud.features.entities import ENTITIES, PERSONAL, TRACKED_FIELDS, VELOCITY_TTL
from fraud.features.functions import (
    AWAY,
    COUNT,
    DEVIATION,
    DISTANCE,
    DISTINCT,
    HOUR,
    MEAN,
    NEW,
    NIGHT,
    OVER,
    PRESENT_FIELD,
    RATE,
    SINCE_FIRST,
    SINCE_LAST,
    STD,
    SUM,
    VALUE,
    WEEKDAY,
    WEEKEND,
    ZSCORE,
)
from fraud.features.operations import BEGINS, CODE, FACTOR, FIRST, FIRST_AGAINST, NEW_AT, SECOND
from fraud.features.request import REQUEST_FIELDS
from fraud.state.last_seen import NEVER
from fraud.state.observation import NO_LOCATION
from fraud.state.places import great_circle_km
from fraud.state.window_loops import (
    NOVELTY,
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
DAY_MS: Final = 86_400_000

# Columns of the requests.
_FIELDS: Final = tuple(REQUEST_FIELDS)
_AT, _AMOUNT, _LOCATION = (_FIELDS.index(name) for name in ("event_ms", "amount_reference", "location"))
_LATENESS, _OWN = _FIELDS.index("lateness_ms"), _FIELDS.index("transaction_key")
#: By entity, the columns of the hashes that its tables are asked for.
_TRACKED: Final = tuple(
    tuple(_FIELDS.index(f"{name}_hash") for name in entity.tracked)
    + (-1,) * (TABLE_COUNT - len(entity.tracked))
    for entity in ENTITIES
)
_ENTITIES: Final = len(ENTITIES)
_COUNTERPARTIES: Final = tuple(len(entity.counterparties) for entity in ENTITIES)
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
#: By entity, the column of the hash of its own value.
_HASHES: Final = tuple(
    _FIELDS.index(f"{entity.name}_hash") if entity.name in TRACKED_FIELDS else -1 for entity in ENTITIES
)
_PERSONAL: Final = tuple(entity.name in PERSONAL for entity in ENTITIES)

assert tuple(TRACKED_FIELDS) == tuple(
    name.removesuffix("_hash") for name in _FIELDS if name.endswith("_hash")
)


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
        _of_request(0, BEGINS[0], request, known, out)
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
                _of_entity(place, request, asked, figures, last, first, where, located, out)
                _ask_partners(words, ends, row, rows, place, request, asked, out)
            else:
                out[BEGINS[place] : BEGINS[place + 1]] = nan
        _of_request(FIRST_AGAINST, len(CODE), request, known, out)


@compiled
def _ask_partners(
    words: Ints, ends: Ints, row: int, rows: int, place: int, request: Ints, asked: Ints, out: Floats,
) -> None:  # fmt: skip
    """Ask the other side of a pair whose own table is full: that this card is new to this merchant and that
    this merchant is new to this card are one fact, and of the two the one with few partners remembers it."""
    start = ends[place * rows + row]
    for table in range(_COUNTERPARTIES[place]):
        partner, novelty = _PARTNERS[place][table], NEW_AT[place][table]
        if partner < 0 or novelty < 0 or asked[table] == 0 or not table_is_full(words, start, place, table):
            continue
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
                NOVELTY[place][table],
            )
            if used == 1:
                out[novelty] = 0.0


@compiled
def _of_request(begin: int, end: int, request: Ints, known: Floats, out: Floats) -> None:
    """Features of the transaction alone, and those that hold it against profiles and other features."""
    at_ms, amount = request[_AT], request[_AMOUNT]
    hour = (at_ms % DAY_MS) / 3_600_000
    weekday = (at_ms // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    for place in range(begin, end):
        code, first, second = CODE[place], FIRST[place], SECOND[place]
        if code == OVER:
            out[place] = ratio(amount, known[first])
        elif code == DEVIATION:
            out[place] = ratio(amount - known[first], known[second])
        elif code == RATE:
            out[place] = ratio(out[first] * FACTOR[place], known[second])
        elif code == AWAY:
            out[place] = nan
            if request[_LOCATION] != NO_LOCATION:
                out[place] = _kilometres(known[first], known[second], request[_LOCATION])
        elif code == VALUE:
            out[place] = request[first]
        elif code == PRESENT_FIELD:
            out[place] = request[first] != 0
        elif code == HOUR:
            out[place] = hour
        elif code == WEEKDAY:
            out[place] = weekday
        elif code == NIGHT:
            out[place] = hour < 6
        elif code == WEEKEND:
            out[place] = weekday >= 5


@compiled
def _of_entity(
    entity: int, request: Ints, asked: Ints, figures: Figures, last: int, first: int, where: int,
    located: int, out: Floats,
) -> None:  # fmt: skip
    """What is declared of an entity's state, from its figures by window and table."""
    at_ms = request[_AT]
    for place in range(BEGINS[entity], BEGINS[entity + 1]):
        code, one, window = CODE[place], FIRST[place], SECOND[place]
        if code == COUNT:
            out[place] = figures.counts[window]
        elif code == SUM:
            out[place] = figures.totals[window]
        elif code == DISTINCT:
            out[place] = figures.distinct[one, window]
        elif code == NEW:
            out[place] = 1.0 - figures.seen[one] if asked[one] != 0 else nan
        elif code in (MEAN, STD, ZSCORE):
            number = figures.counts[window]
            mean = ratio(figures.totals[window], number)
            if code == MEAN:
                out[place] = mean
                continue
            variance = ratio(figures.squares[window], number) - mean * mean
            deviation = 0.0 if variance < 0 else sqrt(variance)
            out[place] = deviation if code == STD else ratio(request[_AMOUNT] - mean, deviation)
        elif code == SINCE_LAST:
            out[place] = seconds_since(at_ms, last)
        elif code == SINCE_FIRST:
            # Up to the window, so that it means the same however long the log is.
            age = seconds_since(at_ms, first)
            out[place] = FACTOR[place] if age > FACTOR[place] else age
        else:  # DISTANCE, SPEED
            away = nan
            if located != NEVER and request[_LOCATION] != NO_LOCATION:
                latitude, longitude = _degrees(where)
                away = _kilometres(latitude, longitude, request[_LOCATION])
            # Between the moments at which it was in both places, whichever came first.
            apart = max(abs(at_ms - request[_LATENESS] - located), 1)
            out[place] = away if code == DISTANCE else away / (apart / 3_600_000.0)


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
