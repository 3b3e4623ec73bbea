"""The arrival log: every accepted event as a row of lake/transactions, in arrival order.

Rows become files at the source partition's own snapshot, one per partition, snapshot and event
date, named by the first and last ingest sequence. The disk takes its time; until a file is safe
on it, snapshots hold its bytes, and a run that resumes from one writes it again. After a crash
the replay repeats the rows since the last snapshot; files that start at or after the first
repeated row were written by the crashed run beyond that snapshot, and are removed before the
replay writes them again.
"""

from __future__ import annotations

import re
from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.lake import TIMESTAMP, TRANSACTION_SCHEMA, TRANSACTIONS, by_event_date
from streaming.disk import Disk
from streaming.ingest import Arrivals

_TEXT: Final = (
    "transaction_id", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip", "currency",
    "channel", "merchant_category", "country", "latitude", "longitude",
)  # fmt: skip
#: Columns whose values repeat, and those that readers filter by: the others only cost time.
_REPEATING: Final = ["merchant_id", "terminal_id", "currency", "channel", "merchant_category", "country"]
_TIMES: Final = ["event_timestamp", "created_timestamp"]
ARRIVAL_FILE: Final = re.compile(r"arrival-(?P<partition>\d{3})-(?P<first>\d{20})-(?P<last>\d{20})\.parquet")

#: Rows that are flushed without waiting for a snapshot, so that a backlog is bounded in memory.
MOST_ROWS: Final = 100_000


class ArrivalLog:
    """The rows of one partition, buffered until `roll` or `flush`.

    `unwritten` are the files that the snapshot resumed from holds.
    """

    def __init__(
        self, lake: Path, partition: int, disk: Disk, unwritten: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        self._folder = lake / TRANSACTIONS
        self._partition = partition
        self._disk = disk
        self._rows = Arrivals([], [], [], [])
        self._stale_removed = False
        self._under_way: list[tuple[str, bytes, Future[None]]] = []
        for name, content in unwritten:
            self._write(name, content)

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

    def roll(self) -> tuple[tuple[str, bytes], ...]:
        """Begin to write the buffered rows; return every file that is not yet safe: name and bytes."""
        rows = self._rows
        if rows.sequences:
            first, last = rows.sequences[0], rows.sequences[-1]
            if not self._stale_removed:
                self._remove_from(first)
                self._stale_removed = True
            name = f"arrival-{self._partition:03d}-{first:020d}-{last:020d}.parquet"
            for day, table in by_event_date(arrival_table(rows)):
                buffer = BytesIO()
                pq.write_table(
                    table, buffer, compression="zstd", use_dictionary=_REPEATING, write_statistics=_TIMES
                )
                self._write(f"{day}/{name}", buffer.getvalue())
            self._rows = Arrivals([], [], [], [])
        waiting = []
        for item in self._under_way:
            if item[2].done():
                item[2].result()
            else:
                waiting.append(item)
        self._under_way = waiting
        return tuple([(name, content) for name, content, _ in waiting])

    def flush(self) -> None:
        """Write the buffered rows and wait until all files are on disk."""
        self.roll()
        for _, _, writing in self._under_way:
            writing.result()
        self._under_way.clear()

    def _write(self, name: str, content: bytes) -> None:
        self._under_way.append((name, content, self._disk.write(self._folder / name, lambda: content)))

    def _remove_from(self, first: int) -> None:
        """Remove this partition's files that start at or after sequence `first`."""
        for path in self._folder.glob(f"date=*/arrival-{self._partition:03d}-*.parquet"):
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
