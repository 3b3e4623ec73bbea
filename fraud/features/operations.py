"""The table of operations behind request-time features: one row per declared feature, in order.

Rows of the transaction alone come first, then those of each entity's state, then those that hold the
transaction against profiles and other features.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

import numpy as np

from fraud.declared.figures import Figure
from fraud.features.entities import ENTITIES, WINDOWS, Entity, table_of, velocity_figures
from fraud.features.feature_list import ALONE, COMPARED, PROFILE_INPUTS, TRANSACTION_FEATURES
from fraud.features.functions import DISTINCT, FIELDS, NEW, OF_REQUESTS, OF_STATES, RATE
from fraud.features.plan import STANDARD
from fraud.features.request import REQUEST_FIELDS

_REQUEST: Final = tuple(REQUEST_FIELDS)
_LENGTHS: Final = tuple([window.milliseconds for window in WINDOWS])
_AT: Final = {feature.name: place for place, feature in enumerate(TRANSACTION_FEATURES)}
_WINDOW_OF: Final = {
    each.name: each.window_ms
    for figures in (
        *[view.figures for view in STANDARD.batches],
        *[view.figures for view in STANDARD.velocities],
    )
    for each in figures
}


def _of_state(entity: Entity, figure: Figure) -> tuple[int, int, int, float]:
    code = OF_STATES[figure.function]
    table = table_of(entity, figure.column) if code in (DISTINCT, NEW) else 0
    window = _LENGTHS.index(figure.window_ms) if figure.window_ms in _LENGTHS else 0
    return code, table, window, figure.window_ms / 1000.0


def _of_request(figure: Figure) -> tuple[int, int, int, float]:
    code, columns = OF_REQUESTS[figure.function], figure.columns
    if code == RATE:
        # So many times its window goes into that of the profile it is held against.
        factor = _WINDOW_OF[columns[1]] / _WINDOW_OF[columns[0]]
        return code, _AT[columns[0]], PROFILE_INPUTS.index(columns[1]), factor
    if figure in COMPARED:
        places = [PROFILE_INPUTS.index(name) for name in columns]
        return code, places[0], places[-1], 0.0
    return code, _REQUEST.index(FIELDS[columns[0]]), 0, 0.0


_ROWS: Final = [
    *[_of_request(each) for each in ALONE],
    *[_of_state(entity, each) for entity in ENTITIES for each in velocity_figures(entity)],
    *[_of_request(each) for each in COMPARED],
]
#: By feature: what is done, with which two things, and a factor.
CODE: Final = np.array([row[0] for row in _ROWS], dtype=np.int64)
FIRST: Final = np.array([row[1] for row in _ROWS], dtype=np.int64)
SECOND: Final = np.array([row[2] for row in _ROWS], dtype=np.int64)
FACTOR: Final = np.array([row[3] for row in _ROWS], dtype=np.float64)
#: Where each entity's features begin, and where the last one's end.
BEGINS: Final = tuple(accumulate([len(velocity_figures(entity)) for entity in ENTITIES], initial=len(ALONE)))
FIRST_AGAINST: Final = BEGINS[-1]
_TABLES: Final = max(len(entity.tracked) for entity in ENTITIES)
#: By entity and last-seen table, the feature that its novelty is; -1 where none is declared.
NEW_AT: Final = tuple(
    tuple(
        next(
            (
                BEGINS[place] + at
                for at, each in enumerate(velocity_figures(entity))
                if each.function == "new" and table_of(entity, each.column) == table
            ),
            -1,
        )
        for table in range(_TABLES)
    )
    for place, entity in enumerate(ENTITIES)
)
