"""The arrival log: every accepted event as a row of lake/transactions, in arrival order.

Rows are flushed by the source partition's own snapshot, one file per partition, snapshot and
event date, named by the first and last ingest sequence. After a crash the replay repeats the
rows since the last snapshot; files that start at or after the first repeated row were written
by the crashed run beyond that snapshot, and are removed before the replay writes them again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from datasets.lake import TIMESTAMP, TRANSACTION_SCHEMA, TRANSACTIONS, write_transactions
from streaming.ingest import Arrivals

_TEXT: Final = (
    "transaction_id", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip", "currency",
    "channel", "merchant_category", "country", "latitude", "longitude",
)  # fmt: skip
ARRIVAL_FILE: Final = re.compile(r"arrival-(?P<partition>\d{3})-(?P<first>\d{20})-(?P<last>\d{20})\.parquet")

#: Rows that are flushed without waiting for a snapshot, so that a backlog is bounded in memory.
MOST_ROWS: Final = 100_000


class ArrivalLog:
    """The rows of one partition, buffered until `flush`."""

    def __init__(self, lake: Path, partition: int) -> None:
        self._lake = lake
        self._partition = partition
        self._rows = Arrivals([], [], [], [])
        self._stale_removed = False

    def __len__(self) -> int:
        return len(self._rows.sequences)

    def add(self, arrivals: Arrivals) -> None:
        """Buffer accepted events."""
        rows = self._rows
        rows.transactions.extend(arrivals.transactions)
        rows.seen.extend(arrivals.seen)
        rows.sequences.extend(arrivals.sequences)
        rows.known_us.extend(arrivals.known_us)
        if len(self) >= MOST_ROWS:
            self.flush()

    def flush(self) -> list[Path]:
        """Write the buffered rows; return the files, whole and on disk."""
        rows = self._rows
        if not rows.sequences:
            return []
        first, last = rows.sequences[0], rows.sequences[-1]
        if not self._stale_removed:
            self._remove_from(first)
            self._stale_removed = True
        name = f"arrival-{self._partition:03d}-{first:020d}-{last:020d}"
        written = write_transactions(arrival_table(rows), self._lake, name=name)
        self._rows = Arrivals([], [], [], [])
        return written

    def _remove_from(self, first: int) -> None:
        """Remove this partition's files that start at or after sequence `first`."""
        for path in (self._lake / TRANSACTIONS).glob(f"date=*/arrival-{self._partition:03d}-*.parquet"):
            named = ARRIVAL_FILE.fullmatch(path.name)
            if named and int(named["first"]) >= first:
                path.unlink()


def arrival_table(rows: Arrivals) -> pa.Table:
    """`rows` in TRANSACTION_SCHEMA; known-at is the partition's event-time clock plus 1 us."""
    transactions, seen, sequences, known = rows
    columns: dict[str, Any] = {name: [getattr(row, name) for row in transactions] for name in _TEXT}
    columns["event_timestamp"] = pa.array([row.event_ms * 1000 for row in seen], pa.int64()).cast(TIMESTAMP)
    columns["created_timestamp"] = pa.array(known, pa.int64()).cast(TIMESTAMP)
    columns["amount_minor"] = [row.amount_minor for row in transactions]
    columns["amount_reference"] = [row.amount for row in seen]
    columns["ingest_seq"] = sequences
    return pa.table({name: columns[name] for name in TRANSACTION_SCHEMA.names}, schema=TRANSACTION_SCHEMA)
