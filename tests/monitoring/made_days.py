"""Days of transactions as a lake holds them, for gates to pass or stop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fraud.contract.money import reference_cents
from stores.lake import TRANSACTION_SCHEMA

DAY = datetime(2018, 8, 10, tzinfo=UTC)


def rows(day: datetime = DAY, count: int = 3_000, seed: int = 0) -> dict[str, list[object]]:
    """A day of transactions with the rhythm of a day: most around 15:00, few at night."""
    generator = np.random.default_rng(seed)
    hours = np.clip(generator.normal(15, 4, count), 0, 23.99)
    hours[:240] = np.repeat(np.arange(24), 10) + 0.5  # every hour holds some
    hours[240:1200] = np.tile(np.arange(24), 40) + 0.25
    times = [day + timedelta(milliseconds=int(hour * 3_600_000)) for hour in np.sort(hours)]
    minor = generator.lognormal(8, 1, count).astype(int)
    return {
        "transaction_id": [f"{day:%m%d}-{place}" for place in range(count)],
        "event_timestamp": list(times),
        "created_timestamp": list(times),
        "customer_id": [f"c{place % 300}" for place in range(count)],
        "card_id": [f"k{place % 300}" for place in range(count)],
        "merchant_id": [f"m{place % 80}" for place in range(count)],
        "terminal_id": [None] * count,
        "device_id": [f"d{place % 90}" for place in range(count)],
        "ip": [None] * count,
        "amount_minor": [int(value) for value in minor],
        "currency": ["EUR"] * count,
        "amount_reference": [reference_cents(int(value), "EUR") for value in minor],
        "channel": ["ecom"] * count,
        "merchant_category": ["5411"] * count,
        "country": ["FR"] * count,
        "latitude": [None] * count,
        "longitude": [None] * count,
        "ingest_seq": list(range(count)),
        "attributes": [None] * count,
        "stated_timestamp": [None] * count,
        "lateness_ms": [None] * count,
        "decision": [None] * count,
    }


def write(root: Path, columns: dict[str, list[object]], day: datetime = DAY) -> Path:
    folder = root / f"date={day:%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=TRANSACTION_SCHEMA), folder / "part.parquet")
    return folder
