"""The decision log's writer: every decision is on disk before its answer leaves.

Each worker writes one *series*: segments of `<home>/decisions/journal/`, one frame a decision,
one `write` a batch (microseconds, into the page cache; a background thread asks for fdatasync).
`bentos.log.decision_files` turns closed segments into hourly parquet in another process, off the
serving path. A killed worker loses nothing that it answered: its last segment is adopted.

A record is a msgpack array in the order of `stores.decisions.RECORD`, and ends in the code of the
record before it, so that a series is a chain. An entry is a record behind its own code: keyed BLAKE2b
under a key that the storage does not have, named in the record (keys change in mid-series). Whoever
writes files can therefore not hash a chain anew, and what turns the journal into parquet needs no key:
`python -m bentos.tools.audit` computes the codes again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bentos.base.work import Work
from bentos.log.heads import Heads
from fraud.contract.answer import Answer
from stores.attributes import attributes_text
from stores.decisions import journal_folder
from stores.files import new_series
from stores.keys import CODE_BYTES, Seal
from stores.spool import SpoolFile, read_frames

GENESIS: Final = b"\0" * 32
SEGMENT_ROWS: Final = 20_000
SEGMENT_SECONDS: Final = 5.0

_encode = msgspec.msgpack.Encoder().encode


def read_entries(segment: Path) -> Iterator[tuple[bytes, bytes]]:
    """The records of a segment of the journal, each with its code, up to a torn end."""
    for entry in read_frames(segment):
        yield entry[CODE_BYTES:], entry[:CODE_BYTES]


class DecisionLog:
    """The series of one worker. One event loop owns it."""

    def __init__(self, home: Path, seal: Seal, heads: Heads | None = None) -> None:
        self.folder = journal_folder(home)
        self._seal = seal
        self._heads = heads
        self.series = new_series()
        self.sequence = 0
        self._hash = GENESIS
        #: Entries and code of the last one, exchanged as one: another thread puts them out.
        self._head = (0, GENESIS)
        self._segment = 0
        self._opened = time.monotonic()
        self._file = self._open()

    def _open(self) -> SpoolFile:
        return SpoolFile(self.folder / f"{self.series}-{self._segment:08d}.open")

    @property
    def held(self) -> int:
        """Decisions that wait in memory because the disk refuses."""
        return self._file.held

    @property
    def accepting(self) -> bool:
        return not self._file.full

    def append(self, rows: Sequence[tuple[object, ...]]) -> bool:
        """Keep decisions: the fields of `RECORD` between `sequence` and `key`.

        False when the disk refused and they wait in memory. Raises `SpoolFull`, having kept
        none of them.
        """
        entries = []
        previous, sequence, seal = self._hash, self.sequence, self._seal
        key = seal.key_id.hex()
        for row in rows:
            record = _encode((self.series, sequence, *row, key, previous))
            previous = seal.code(record)
            sequence += 1
            entries.append(previous + record)
        written = self._file.append(entries)
        self._hash, self.sequence = previous, sequence
        self._head = sequence, previous
        if self._file.written >= SEGMENT_ROWS:
            self.rotate()
        return written

    def tick(self) -> None:
        """Once a second or so: retry the disk, close a segment that is old enough."""
        self._file.flush()
        if self._file.written and time.monotonic() - self._opened >= SEGMENT_SECONDS:
            self.rotate()

    def rotate(self) -> None:
        """Close the segment for conversion and begin the next; does nothing while records wait."""
        if self._file.held or not self._file.written:
            return
        old, path = self._file, self._file.path
        self._segment += 1
        try:
            self._file = self._open()
        except OSError:  # no room even for a name: keep the segment open
            self._segment -= 1
            return
        old.finish(path.with_suffix(".ready"))
        self._opened = time.monotonic()

    def sync(self) -> None:
        """Block until the disk has everything; call it from a thread."""
        # A segment that was closed meanwhile, or a disk that refuses: the next second tries again.
        with suppress(OSError):
            self._file.sync()
        self._put_out()

    def _put_out(self, *, last: bool = False) -> None:
        if self._heads is not None:
            self._heads.put_out(self.series, *self._head, last=last)

    @property
    def heads_late(self) -> float:
        """Seconds since the chain's heads can no longer be put out; 0 while they can."""
        return self._heads.late if self._heads is not None else 0.0

    def close(self) -> None:
        """Drain and close the series; an empty segment leaves no file."""
        self._file.flush()
        self._put_out(last=True)
        if self._file.written:
            self._file.finish(self._file.path.with_suffix(".ready"))
        else:
            self._file.close(remove=True)


def log_row(
    work: Work,
    row: npt.NDArray[np.float64],
    answer: Answer,
    timestamps: dict[str, int],
    shadows: dict[str, float],
    rules_version: str,
    wall_us: int,
) -> tuple[object, ...]:
    """One decision as the log's fields, from transaction_id to decided_at. Statuses and timestamps are in
    order of their views' names."""
    transaction = work.transaction
    return (
        transaction.transaction_id, work.client, work.event_ms * 1000, work.known_us, work.stated_ms * 1000,
        work.lateness_ms, work.replayed, work.overlaid, transaction.customer_id, transaction.card_id,
        transaction.merchant_id, transaction.terminal_id, transaction.device_id, transaction.ip,
        work.amount_minor, transaction.currency, work.amount_reference, transaction.channel,
        transaction.merchant_category, transaction.country, transaction.latitude, transaction.longitude,
        attributes_text(transaction.attributes), row.tobytes(),
        answer.fraud_score, answer.decision, answer.variant, answer.model_version,
        answer.rules, rules_version, answer.risk_factors, answer.reason_codes,
        list(answer.feature_status.items()), list(timestamps.items()), answer.degraded,
        sorted(shadows.items()), answer.latency_ms, wall_us,
    )  # fmt: skip
