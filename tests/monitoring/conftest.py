"""Made-up decisions, so that each test moves exactly one thing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

MakeDecisions = Callable[..., pd.DataFrame]


def decisions(
    rows: int = 20_000, *, seed: int = 0, days: float = 7.0, start: str = "2018-09-03", amounts: float = 1.0,
    missing: float = 0.0, online: float = 0.3, sharpness: float = 1.0,
) -> pd.DataFrame:  # fmt: skip
    """Decisions of a made-up week. `amounts` scales every amount, `missing` blanks the device's
    age, `online` is the share of the ecom channel, `sharpness` how well the score ranks."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "event_timestamp": pd.Timestamp(start, tz="UTC")
            + pd.to_timedelta(np.sort(generator.random(rows)) * days, "D"),
            "customer_id": generator.integers(0, 2_000, rows).astype(str),
            "channel": np.where(generator.random(rows) < online, "ecom", "pos"),
            "txn_amount": generator.lognormal(3, 1, rows) * amounts,
            "txn_hour": generator.random(rows) * 24,
            "customer_txn_count_1h": generator.poisson(0.6, rows).astype(float),
            "customer_amount_sum_24h": generator.lognormal(4, 1.2, rows),
            "device_age": np.where(generator.random(rows) < missing, np.nan, generator.exponential(5, rows)),
            "ip_nothing": np.nan,
        }
    )
    truth = generator.beta(0.3, 8, rows)
    frame["is_fraud"] = (generator.random(rows) < truth).astype("int64")
    noise = generator.beta(0.3, 8, rows)
    frame["score"] = sharpness * truth + (1 - sharpness) * noise
    frame["decision"] = np.where(frame.score > 0.4, "BLOCK", np.where(frame.score > 0.2, "REVIEW", "APPROVE"))
    frame["amount_reference"] = (frame.txn_amount * 100).astype("int64")
    return frame


@pytest.fixture(scope="session")
def make_decisions() -> MakeDecisions:
    return decisions
