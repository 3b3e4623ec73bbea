"""The request-time features: states, profiles and the transaction itself, as one row of numbers.

`packed_rows` is the one function behind serving, training and Feast's on-demand view. Lists of names
stand in `fraud.features.feature_list`, which loads no compiler.
Missing is NaN, never zero: an entity that the transaction does not name, or that no state is
known of, has NaN for all of its features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fraud.features.entities import ENTITIES
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES
from fraud.features.feature_loops import fill_features
from fraud.features.request import REQUEST_FIELDS
from fraud.state.window_loops import Floats, Ints
from fraud.state.windows import joined


def transaction_matrix(
    states: Sequence[Sequence[bytes | None]], request: Mapping[str, Ints], profiles: Mapping[str, Floats]
) -> Floats:
    """The request-time features of n transactions: (n, len(TRANSACTION_FEATURES)) float64.

    `states[place]` holds n packed states (or None) of the entity at `place` in `ENTITIES`,
    `request` the `REQUEST_FIELDS` and `profiles` the `PROFILE_INPUTS` (NaN: missing), each of
    length n. A row's result does not depend on the rows beside it, to the last bit.
    """
    requests = np.stack([request[name] for name in REQUEST_FIELDS], axis=1)
    known = np.stack([profiles[name] for name in PROFILE_INPUTS], axis=1)
    words, ends = joined([state for column in states for state in column])
    return packed_rows(words, ends, request_rows(requests), known)


def request_rows(requests: Ints | Sequence[tuple[int, ...]]) -> Ints:
    """Requests, as `request_values` gives them, as the rows that `packed_rows` takes and may change."""
    return np.array(requests, dtype=np.int64, order="C").reshape(-1, len(REQUEST_FIELDS))


def packed_rows(words: Ints, ends: Ints, requests: Ints, profiles: Floats) -> Floats:
    """`transaction_matrix` of what is at hand by row: states one behind the other, entity by entity
    (`joined`), `requests` as `request_rows` gives them, profiles as (n, len(PROFILE_INPUTS)).

    Where a transaction counts later than its request says (`fill_features`), the request is changed.
    """
    known = np.ascontiguousarray(profiles)  # numba compiles for each order of each array
    matrix = np.empty((len(requests), len(TRANSACTION_FEATURES)))
    fill_features(words, ends, requests, known, matrix)
    return matrix


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
