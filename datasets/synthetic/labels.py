"""When fraud becomes known: a chargeback takes days, an analyst sometimes hours."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from datasets.synthetic.rows import Array, Ints
from stores.lake import LABEL_SCHEMA, TIMESTAMP

MEDIAN_DAYS: Final = 3.0
P95_DAYS: Final = 21.0
#: Share of genuine transactions that an analyst looks at and clears.
CLEARED_SHARE: Final = 0.0003

_SIGMA: Final = np.log(P95_DAYS / MEDIAN_DAYS) / 1.6448536269514722
_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000


def label_table(ids: pa.Array, event_ms: Ints, fraud: Array, rng: np.random.Generator) -> pa.Table:
    """Reports as LABEL_SCHEMA, by known-at: every fraud once, and a few cleared genuine rows.

    The delay from event to known-at is log-normal with a median of `MEDIAN_DAYS` and a 95th
    percentile of `P95_DAYS`, and at least an hour. What is known within a day came from an
    analyst, the rest by chargeback.
    """
    cleared = ~fraud & (rng.random(len(fraud)) < CLEARED_SHARE)
    reported = np.flatnonzero(fraud | cleared)
    delay = np.exp(np.log(MEDIAN_DAYS) + _SIGMA * rng.normal(0, 1, len(reported))) * _DAY_MS
    review = rng.uniform(1, 48, len(reported)) * _HOUR_MS
    is_fraud = fraud[reported]
    delay = np.maximum(np.where(is_fraud, delay, review), _HOUR_MS).astype(np.int64)
    known = event_ms[reported] + delay
    order = np.argsort(known, kind="stable")
    reported, known, is_fraud, delay = reported[order], known[order], is_fraud[order], delay[order]
    source = np.where(~is_fraud | (delay < _DAY_MS), "analyst", "chargeback")
    columns = [
        ids.take(pa.array(reported)),
        pa.array(event_ms[reported] * 1000).cast(TIMESTAMP),
        pa.array(known * 1000).cast(TIMESTAMP),
        pa.array(is_fraud),
        pa.array(source.tolist(), pa.string()),
    ]
    return pa.table(columns, schema=LABEL_SCHEMA)
