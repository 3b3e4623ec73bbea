"""Small synthetic training sets, made at run time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.plan import Plan, Trained
from training.rows import Rows, rows_of
from training.train import train

DAY_US = 86_400_000_000
START_US = 1_577_836_800_000_000  # 2020-01-01
NAMES = ("card_txn_count_5m", "terminal_fraud_rate_1d", "txn_amount", "noise_a", "noise_b", "txn_channel")


def table(rows: int = 12_000, days: int = 50, seed: int = 1, maturity_days: int = 7) -> pa.Table:
    """Transactions whose fraud follows a burst, a risky terminal or both; 5% of values missing."""
    random = np.random.default_rng(seed)
    features = {
        "card_txn_count_5m": random.poisson(0.4, rows).astype(float),
        "terminal_fraud_rate_1d": random.beta(0.2, 3, rows),
        "txn_amount": random.lognormal(8, 1, rows).round(),
        "noise_a": random.normal(size=rows),
        "noise_b": random.normal(size=rows),
        "txn_channel": random.integers(0, 2, rows).astype(float),
    }
    margin = -6 + 1.3 * features["card_txn_count_5m"] + 6 * features["terminal_fraud_rate_1d"]
    fraud = random.random(rows) < 1 / (1 + np.exp(-margin))
    event = np.sort(random.integers(0, days * DAY_US, rows)) + START_US
    columns: dict[str, object] = {
        "transaction_id": [f"t{place:06d}" for place in range(rows)],
        "event_timestamp": pa.array(event, pa.timestamp("us", "UTC")),
        "customer_id": [f"c{number}" for number in random.integers(0, 600, rows)],
        "merchant_category": random.choice(["5411", "4829", "5999"], rows),
        "channel": random.choice(["pos", "ecom"], rows),
        "country": random.choice(["DE", "FR"], rows),
        "amount_reference": features["txn_amount"].astype(np.int64),
        "is_fraud": fraud,
        "label_mature": event < event.max() - maturity_days * DAY_US,
    }
    for name in NAMES:
        values = features[name]
        columns[name] = pa.array(np.where(random.random(rows) < 0.05, np.nan, values), from_pandas=True)
    return pa.table(columns)


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    """Rows of a synthetic set; options: rows, days, seed, maturity_days."""
    return lambda **options: rows_of(table(**options), NAMES)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """A training-set folder as `training.dataset` writes one; options as for `make_rows`."""

    def make(**options: int) -> Path:
        path = tmp_path / f"set-{len(list(tmp_path.iterdir()))}"
        path.mkdir()
        pq.write_table(table(**options), path / "part-0.parquet")
        manifest = {"features": list(NAMES), "label_maturity_days": 7, "as_of": "2020-02-20T00:00:00Z"}
        (path / "manifest.json").write_text(json.dumps(manifest))
        return path

    return make


@pytest.fixture(scope="session")
def session_rows() -> Rows:
    return rows_of(table(), NAMES)


@pytest.fixture(scope="session")
def trained(session_rows: Rows) -> Trained:
    """One model trained on the default set, for every test that only looks at it."""
    plan = Plan(delay_days=7, rounds=80, patience=20, threads=1)
    return train(session_rows, plan, data={"as_of": "2020-02-20T00:00:00Z"}, progress=lambda _: None)
