"""The request-time features: states, profiles and the transaction itself, as one row of numbers.

`transaction_matrix` is the one function behind serving, training and Feast's on-demand view.
Missing is NaN, never zero: an entity that the transaction does not name, or that no state is
known of, has NaN for all of its features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from fraud.entities import ENTITIES
from fraud.feature_batch import batch_features
from fraud.feature_list import CATEGORICAL, PROFILE_INPUTS, TRANSACTION_FEATURES, VECTOR, Feature
from fraud.feature_row import row_features
from fraud.observation import NO_LOCATION
from fraud.profiles import PROFILE_FEATURES, SERVED_PROFILES, ProfileFeature
from fraud.request import REQUEST_FIELDS, request_columns, request_row, request_values
from fraud.windows import Floats, Ints

__all__ = [
    "CATEGORICAL", "NO_LOCATION", "PROFILE_FEATURES", "PROFILE_INPUTS", "REQUEST_FIELDS",
    "SERVED_PROFILES", "TRANSACTION_FEATURES", "VECTOR", "Feature", "ProfileFeature", "on_demand",
    "request_columns", "request_row", "request_values", "transaction_features", "transaction_matrix",
    "transaction_rows",
]  # fmt: skip

#: Up to so many rows are computed one by one: numpy's fixed cost is that of about four.
ROWS_ONE_BY_ONE: Final = 3


def transaction_matrix(
    states: Sequence[Sequence[bytes | None]], request: Mapping[str, Ints], profiles: Mapping[str, Floats]
) -> Floats:
    """The request-time features of n transactions: (n, len(TRANSACTION_FEATURES)) float64.

    `states[place]` holds n packed states (or None) of the entity at `place` in `ENTITIES`,
    `request` the `REQUEST_FIELDS` and `profiles` the `PROFILE_INPUTS` (NaN: missing), each of
    length n. A row's result does not depend on the rows beside it, to the last bit.
    """
    rows = len(request["event_ms"])
    if not 0 < rows <= ROWS_ONE_BY_ONE:
        return batch_features(states, request, profiles)
    asked = {name: request[name].tolist() for name in REQUEST_FIELDS}
    known = {name: profiles[name].tolist() for name in PROFILE_INPUTS}
    return np.array(
        [
            row_features(
                [column[row] for column in states],
                {name: values[row] for name, values in asked.items()},
                {name: values[row] for name, values in known.items()},
            )
            for row in range(rows)
        ],
        dtype=np.float64,
    )


def transaction_rows(
    states: Sequence[Sequence[bytes | None]],
    requests: Sequence[tuple[int, ...]],
    profiles: Mapping[str, Floats],
) -> Floats:
    """`transaction_matrix` of requests that are at hand as tuples (`request_values`), one a row."""
    if not 0 < len(requests) <= ROWS_ONE_BY_ONE:
        columns = np.array(requests, dtype=np.int64).reshape(-1, len(REQUEST_FIELDS)).T
        return batch_features(states, dict(zip(REQUEST_FIELDS, columns, strict=True)), profiles)
    return np.array(
        [
            row_features(
                [column[row] for column in states],
                dict(zip(REQUEST_FIELDS, request, strict=True)),
                {name: float(profiles[name][row]) for name in PROFILE_INPUTS},
            )
            for row, request in enumerate(requests)
        ],
        dtype=np.float64,
    )


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
