"""The arrival log: every accepted event as a row of lake/transactions, in arrival order.

Rows become files every second and at the source partition's own snapshot, one per partition and event
date, named by the first and last ingest sequence. A thread makes and writes them; until a file is
safe on disk, snapshots hold its events, and a run that resumes from one writes it again. After a crash
the replay repeats the rows since the last snapshot; files that start at or after the first
repeated row were written by the crashed run beyond that snapshot, and are removed before the
replay writes them again.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import Future
from datetime import date, timedelta
from functools import partial
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from fraud.contract.event import parse_event
from fraud.state.observation import observe_measured
from stores.aside import put_aside
from stores.attributes import attributes_text
from stores.lake import TIMESTAMP, TRANSACTION_SCHEMA, TRANSACTIONS
from streaming.ingest.ingest import Arrivals
from streaming.states.disk import Disk

_TEXT: Final = (
    "transaction_id", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip", "currency",
    "channel", "merchant_category", "country", "latitude", "longitude",
)  # fmt: skip
_texts: Final = attrgetter(*_TEXT)
#: What a payload with attributes holds, whatever else it does.
_ATTRIBUTES: Final = b'"attributes"'
_TEXT_SCHEMA: Final = pa.schema([TRANSACTION_SCHEMA.field(name) for name in _TEXT])
_AS_IN_THE_LOG: Final = pj.ParseOptions(
    explicit_schema=_TEXT_SCHEMA, newlines_in_values=True, unexpected_field_behavior="ignore"
)
#: Columns whose values repeat, and those that readers filter by: the others only cost time.
_REPEATING: Final = [
    "merchant_id", "terminal_id", "currency", "channel", "merchant_category", "country", "decision",
]  # fmt: skip
_TIMES: Final = ["event_timestamp", "created_timestamp"]
_EPOCH: Final = date(1970, 1, 1)
_DAY_MS: Final = 86_400_000
ARRIVAL_FILE: Final = re.compile(r"arrival-(?P<partition>\d{3})-(?P<first>\d{20})-(?P<last>\d{20})\.parquet")

#: Rows that are flushed without waiting for a snapshot, so that a backlog is bounded in memory.
MOST_ROWS: Final = 100_000
#: Seconds of rows that become a file without waiting for a snapshot, so that it has few left to hold.
_ROLL_S: Final = 1.0


class Unwritten(NamedTuple):
    """A file that is not yet on disk: its name under the lake's transactions, and its events."""

    name: str
    payloads: tuple[bytes, ...]
    sequences: tuple[int, ...]
    known_us: tuple[int, ...]

    def rows(self) -> Arrivals:
        rows = Arrivals.none()
        for payload, sequence, known_us in zip(self.payloads, self.sequences, self.known_us, strict=True):
            transaction, event_ms, minor, _, times = parse_event(payload)
            seen = observe_measured(transaction, event_ms, minor)
            rows.add(seen, minor, sequence, known_us, payload, times)
        return rows


class ArrivalLog:
    """The rows of one partition, buffered until `roll` or `flush`.

    `unwritten` are the files that the snapshot resumed from holds.
    """

    def __init__(
        self,
        lake: Path,
        partition: int,
        disk: Disk,
        unwritten: tuple[tuple[Any, ...], ...] = (),
    ) -> None:
        self._folder = lake / TRANSACTIONS
        self._aside = lake / "_aside"  # which no reader of the lake lists
        self._partition = partition
        self._disk = disk
        self._rows = Arrivals.none()
        self._rolled_at = time.monotonic()
        self._stale_removed = False
        self._under_way: list[tuple[Unwritten, Future[None]]] = []
        for file in unwritten:
            self._write(file[0], Unwritten(*file).rows())

    def __len__(self) -> int:
        return len(self._rows.sequences)

    def add(self, arrivals: Arrivals) -> None:
        """Buffer accepted events."""
        columns: tuple[list[Any], ...] = self._rows
        more: tuple[list[Any], ...] = arrivals
        for column, added in zip(columns, more, strict=True):
            column.extend(added)
        if len(self) >= MOST_ROWS:
            self.flush()
        elif time.monotonic() - self._rolled_at >= _ROLL_S:
            self.roll()

    def roll(self) -> tuple[tuple[Any, ...], ...]:
        """Begin to write the buffered rows; return the fields of each `Unwritten` file."""
        rows = self._rows
        self._rolled_at = time.monotonic()
        if rows.sequences:
            first, last = rows.sequences[0], rows.sequences[-1]
            if not self._stale_removed:
                self._remove_from(first)
                self._stale_removed = True
            name = f"arrival-{self._partition:03d}-{first:020d}-{last:020d}.parquet"
            for day, part in _by_day(rows):
                self._write(f"date={_EPOCH + timedelta(days=day):%Y-%m-%d}/{name}", part)
            self._rows = Arrivals.none()
        waiting = []
        for item in self._under_way:
            if item[1].done():
                item[1].result()
            else:
                waiting.append(item)
        self._under_way = waiting
        return tuple([tuple(file) for file, _ in waiting])

    def flush(self) -> None:
        """Write the buffered rows and wait until all files are on disk."""
        self.roll()
        for _, writing in self._under_way:
            writing.result()
        self._under_way.clear()

    def _write(self, name: str, rows: Arrivals) -> None:
        file = Unwritten(name, tuple(rows.payloads), tuple(rows.sequences), tuple(rows.known_us))
        self._under_way.append(
            (file, self._disk.write(self._folder / name, partial(_content, rows, self._aside)))
        )

    def _remove_from(self, first: int) -> None:
        """Remove this partition's files that start at or after sequence `first`."""
        for path in self._folder.glob(f"date=*/arrival-{self._partition:03d}-*.parquet"):
            named = ARRIVAL_FILE.fullmatch(path.name)
            if named and int(named["first"]) >= first:
                path.unlink()


def _by_day(rows: Arrivals) -> list[tuple[int, Arrivals]]:
    """The rows of each UTC day of event time (days since 1970), in arrival order; mostly it is one."""
    days = [one.event_ms // _DAY_MS for one in rows.seen]
    if min(days) == max(days):
        return [(days[0], rows)]
    parts: dict[int, Arrivals] = {}
    for day, *row in zip(days, *rows, strict=True):
        part: tuple[list[Any], ...] = parts.setdefault(day, Arrivals.none())
        for column, value in zip(part, row, strict=True):
            column.append(value)
    return sorted(parts.items())


def _content(rows: Arrivals, aside: Path) -> bytes:
    """The parquet file of `rows`; what has no place in it goes to the folder `aside`."""
    try:
        table = arrival_table(rows)
    except Exception:  # noqa: BLE001  nothing that the contract accepts is known to fail
        table = _usable(rows, aside)
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=_REPEATING, write_statistics=_TIMES)
    return buffer.getvalue()


def _usable(rows: Arrivals, aside: Path) -> pa.Table:
    """Those of `rows` that fit the schema, so that one which does not holds up no other."""
    tables = [TRANSACTION_SCHEMA.empty_table()]
    for row in zip(*rows, strict=True):
        one = Arrivals(*([value] for value in row))
        try:
            tables.append(arrival_table(one))
        except Exception as error:  # noqa: BLE001
            put_aside(aside, f"no row of the lake: {type(error).__name__}", one.payloads[0])
    return pa.concat_tables(tables)


def arrival_table(rows: Arrivals) -> pa.Table:
    """`rows` in TRANSACTION_SCHEMA; known-at is the service's, or the partition's event-time clock."""
    seen, minor, sequences, known, payloads, stated, late, decisions = rows
    texts = _read_texts(payloads)
    columns: dict[str, Any] = {name: texts[name] for name in _TEXT}
    columns["event_timestamp"] = pa.array([row.event_ms * 1000 for row in seen], pa.int64()).cast(TIMESTAMP)
    columns["created_timestamp"] = pa.array(known, pa.int64()).cast(TIMESTAMP)
    columns["stated_timestamp"] = pa.array(stated, pa.timestamp("ms", tz="UTC")).cast(TIMESTAMP)
    columns["lateness_ms"] = late
    columns["decision"] = decisions
    columns["amount_minor"] = minor
    columns["amount_reference"] = [row.amount for row in seen]
    columns["ingest_seq"] = sequences
    columns["attributes"] = [
        attributes_text(parse_event(payload)[0].attributes) if _ATTRIBUTES in payload else None
        for payload in payloads
    ]
    return pa.table({name: columns[name] for name in TRANSACTION_SCHEMA.names}, schema=TRANSACTION_SCHEMA)


def _read_texts(payloads: list[bytes]) -> pa.Table:
    """The `_TEXT` columns of accepted events, parsed again by Arrow: it works without the interpreter,
    which the flow needs meanwhile."""
    data = b"\n".join(payloads)
    try:
        texts = pj.read_json(
            BytesIO(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=_AS_IN_THE_LOG,
        )
    except pa.ArrowInvalid:  # such as a number where the contract reads text
        return parsed_texts(payloads)
    return texts if len(texts) == len(payloads) else parsed_texts(payloads)


def parsed_texts(payloads: list[bytes]) -> pa.Table:
    """The same by the contract's own parser."""
    columns = zip(*[_texts(parse_event(payload)[0]) for payload in payloads], strict=True)
    return pa.table(dict(zip(_TEXT, map(list, columns), strict=True)), schema=_TEXT_SCHEMA)
