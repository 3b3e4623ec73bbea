"""A small lake with everything that goes wrong in a real one, from a seed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stores.lake import (
    LABEL_SCHEMA,
    TIMESTAMP,
    TRANSACTION_SCHEMA,
    conform,
    write_labels,
    write_transactions,
)

START = datetime(2026, 1, 5, tzinfo=UTC)
DAY_US = 86_400_000_000


def start_us() -> int:
    return int(START.timestamp()) * 1_000_000


def small_transactions(rows: int = 3000, days: int = 60, seed: int = 7) -> pa.Table:
    """Transactions in arrival order: 3% late by up to two days, some optional fields absent."""
    random = np.random.default_rng(seed)
    event = start_us() + np.sort(random.integers(0, days * 86_400_000, rows)) * 1000
    # Some events fall exactly on a cut, where windows begin and end.
    event[:: rows // 40] = event[:: rows // 40] // 21_600_000_000 * 21_600_000_000
    late = random.random(rows) < 0.03
    created = event + 1 + np.where(late, random.integers(1, 2 * 86_400_000, rows) * 1000, 0)
    order = np.argsort(created, kind="stable")
    event, created = event[order], created[order]

    def ids(prefix: str, count: int, absent: float = 0.0) -> pa.Array:
        # Squares make some values busy and most quiet.
        picked = (random.random(rows) ** 2 * count).astype(int)
        gone = random.random(rows) < absent
        return pa.array(
            [None if g else f"{prefix}{p}" for p, g in zip(picked, gone, strict=True)], pa.string()
        )

    merchants = ids("m", 25)
    located = random.random(rows) < 0.8
    cents = random.integers(0, 50_000, rows)
    cents[random.random(rows) < 0.01] = 2**31 - 1
    columns: dict[str, Any] = {
        "transaction_id": [f"t{i}" for i in range(rows)],
        "event_timestamp": pa.array(event).cast(TIMESTAMP),
        "created_timestamp": pa.array(created).cast(TIMESTAMP),
        "customer_id": ids("c", 40),
        "card_id": ids("k", 50),
        "merchant_id": merchants,
        "terminal_id": ids("x", 30, absent=0.3),
        "device_id": ids("d", 45, absent=0.4),
        "ip": ids("i", 20, absent=0.5),
        "amount_minor": cents,
        "currency": ["USD"] * rows,
        "amount_reference": cents,
        "channel": random.choice(["pos", "ecom"], rows),
        "merchant_category": [
            None if m == "m3" else f"57{int(m[1:]) % 4:02d}" for m in merchants.to_pylist()
        ],
        "country": random.choice(["DE", "FR", None], rows),
        # Fiji, on both sides of the line where longitudes jump.
        "latitude": np.where(located, random.random(rows) - 18, np.nan),
        "longitude": np.where(located, (random.random(rows) + 359.5) % 360 - 180, np.nan),
        "ingest_seq": np.arange(rows),
        "attributes": pa.nulls(rows, pa.string()),
    }
    for name in ("latitude", "longitude"):
        columns[name] = pa.array(columns[name], from_pandas=True)
    return conform(pa.table(columns), TRANSACTION_SCHEMA)


def small_labels(transactions: pa.Table, seed: int = 11) -> pa.Table:
    """Reports on a tenth of the transactions, days late; some are repeated, some withdrawn."""
    random = np.random.default_rng(seed)
    rows = []
    for row in transactions.select(["transaction_id", "event_timestamp"]).to_pylist():
        if random.random() > 0.1:
            continue
        known = row["event_timestamp"] + timedelta(seconds=int(random.exponential(4 * 86_400)))
        rows.append({**row, "created_timestamp": known, "is_fraud": True, "source": "chargeback"})
        if random.random() < 0.2:
            later = known + timedelta(seconds=int(random.integers(0, 10 * 86_400)))
            verdict = bool(random.random() < 0.4)
            rows.append({**row, "created_timestamp": later, "is_fraud": verdict, "source": "analyst"})
    return pa.Table.from_pylist(rows, LABEL_SCHEMA)


def write_lake(root: Path, transactions: pa.Table, labels: pa.Table) -> None:
    """Write both under `root`; a few transactions are delivered twice, in another file."""
    write_transactions(transactions, root, name="history")
    write_transactions(transactions.slice(100, 30), root, name="again")
    write_labels(labels, root, name="history")
