"""Which columns are worth growing trees on: constants and exact repeats are not.

Data from elsewhere often fills one field from another (a card per customer, a terminal per
merchant), so that half of the vector repeats the other half. The model keeps the whole vector
as its input; its trees just never read the columns left out here.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def left_out(features: NDArray[np.float64]) -> NDArray[np.bool_]:
    """True for columns of (rows, columns) that are constant (or all missing) or repeat an
    earlier one bit for bit, missing values included."""
    drop = np.zeros(features.shape[1], dtype=bool)
    seen: set[bytes] = set()
    for place in range(features.shape[1]):
        column = np.ascontiguousarray(features[:, place])
        known = column[~np.isnan(column)]
        if not len(known) or (len(known) == len(column) and known.min() == known.max()):
            drop[place] = True
            continue
        column = np.where(np.isnan(column), np.nan, column)  # one bit pattern for every NaN
        digest = hashlib.blake2b(column.tobytes(), digest_size=16).digest()
        drop[place] = digest in seen
        seen.add(digest)
    return drop


def blank(features: NDArray[np.float64], drop: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`features` with the columns of `drop` set to a constant, which no tree can split on."""
    if not drop.any():
        return features
    blanked = features.copy()
    blanked[:, drop] = 0.0
    return blanked
