"""Which columns are worth growing trees on: constants and exact repeats are not.

Data from elsewhere often fills one field from another (a card per customer, a terminal per
merchant), so that half of the vector repeats the other half. The model keeps the whole vector
as its input; its trees just never read the columns left out here.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def left_out(features: NDArray[np.float64], rows: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """True for columns of (rows, columns) that are constant (or all missing) or repeat an
    earlier one bit for bit, missing values included; judged on the chosen `rows`."""
    drop = np.zeros(features.shape[1], dtype=bool)
    seen: set[bytes] = set()
    for place in range(features.shape[1]):
        column = features[:, place] if rows is None else features[rows, place]
        known = column[~np.isnan(column)]
        if not len(known) or (len(known) == len(column) and known.min() == known.max()):
            drop[place] = True
            continue
        column = np.where(np.isnan(column), np.nan, column)  # one bit pattern for every NaN
        digest = hashlib.blake2b(column.tobytes(), digest_size=16).digest()
        drop[place] = digest in seen
        seen.add(digest)
    return drop
