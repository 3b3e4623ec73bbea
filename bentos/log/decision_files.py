"""From the decision log's journal to hourly parquet, off the serving path.

`python -m bentos.log.decision_files` converts every closed segment, and every segment whose writer is
gone, into `<home>/decisions/date=YYYY-MM-DD/hour=HH/<segment>.parquet` (date and hour of the
*decision*, UTC: callers' event times name no folder), then deletes the segment. Names are
deterministic and files appear whole, so converting twice changes nothing. With `--follow PID` it
does so until its parent PID is gone, while a processor is idle or after 20 seconds in which none was.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bentos.log.decision_log import read_entries
from bentos.log.label_files import convert_labels
from fraud.features.feature_list import VECTOR
from machine.garbage import without_collections
from machine.spare_time import Patience
from stores.decisions import (
    HASH,
    MAPS,
    RECORD,
    VECTOR_COLUMN,
    decisions_folder,
    journal_folder,
    parquet_schema,
)
from stores.declared import served_vector
from stores.files import written_whole
from stores.settings import settings
from stores.spool import orphaned

_REPEATING: Final = [
    field.name
    for field in parquet_schema()
    if pa.types.is_string(field.type) and field.name != "transaction_id"
]
_HOUR_US: Final = 3_600_000_000
#: Closed segments wait so long for an idle processor: what they take is missing to requests.
_PATIENCE_S: Final = 20.0
#: Decisions that are decoded at once.
_PIECE: Final = 512

_decode = msgspec.msgpack.Decoder(list[Any]).decode


def _table(codes: Sequence[bytes], rows: Sequence[list[Any]]) -> pa.Table:
    """Entries of the journal as rows of `parquet_schema` of their features.

    Own features were only ever added at the end: a vector of fewer was served before the last of them were
    declared. Raises ValueError for a vector that is none of these.
    """
    columns = dict(zip(RECORD, zip(*rows, strict=True), strict=True))
    served = served_vector()
    width = len(columns[VECTOR_COLUMN][0]) // 8
    vectors = np.frombuffer(b"".join(columns.pop(VECTOR_COLUMN)), "<f8")
    if len(vectors) != len(rows) * width or not len(VECTOR) <= width <= len(served):
        raise ValueError(f"vectors do not hold {len(served)} features; were they written by another version?")
    schema = parquet_schema(served[:width])
    features = dict(zip(served[:width], np.ascontiguousarray(vectors.reshape(len(rows), -1).T), strict=True))
    for name in MAPS:
        columns[name] = tuple([tuple(pair) for pair in pairs] for pairs in columns[name])
    columns[HASH] = tuple(codes)
    return pa.table(
        [
            pa.array(features[field.name])
            if field.name in features
            else pa.array(columns[field.name], field.type)
            for field in schema
        ],
        schema=schema,
    )


class _Hour:
    """The decisions of one hour, made rows a piece at a time.

    Of a whole segment, what is decoded would be millions of small objects, too many for the processor's
    caches.
    """

    def __init__(self) -> None:
        self._codes: list[bytes] = []
        self._rows: list[list[Any]] = []
        self._pieces: list[pa.Table] = []

    def add(self, code: bytes, row: list[Any]) -> None:
        self._codes.append(code)
        self._rows.append(row)
        if len(self._rows) >= _PIECE:
            self._close()

    def table(self) -> pa.Table:
        if self._rows:
            self._close()
        return pa.concat_tables(self._pieces)

    def _close(self) -> None:
        self._pieces.append(_table(self._codes, self._rows))
        self._codes, self._rows = [], []


@without_collections()  # what is decoded has no cycles
def convert(segment: Path, root: Path) -> int:
    """Write one segment as hourly files under `root`, delete it, return its number of decisions."""
    by_hour: dict[int, _Hour] = {}
    place = RECORD.index("decided_at")
    for record, code in read_entries(segment):
        row = _decode(record)
        by_hour.setdefault(row[place] // _HOUR_US, _Hour()).add(code, row)
    decisions = 0
    for hour, found in by_hour.items():
        table = found.table()
        decisions += table.num_rows
        moment = datetime.fromtimestamp(hour * _HOUR_US / 1e6, UTC)
        folder = root / f"date={moment:%Y-%m-%d}" / f"hour={moment:%H}"
        # Durable: the journal, which was, is deleted next.
        with written_whole(folder / f"{segment.stem}.parquet", durable=True) as unfinished:
            # Numbers hardly repeat: a dictionary of each would only be built to be thrown away.
            pq.write_table(table, unfinished, compression="zstd", use_dictionary=_REPEATING)
    segment.unlink()
    return decisions


def convert_all(home: Path) -> int:
    """Convert every segment that is closed or has lost its writer; return how many decisions.

    Processes take turns: one that finds another at it waits for that to finish.
    """
    folder = journal_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        return _convert_all(home, folder)


def _convert_all(home: Path, folder: Path) -> int:
    for segment in sorted(folder.glob("*.open")):
        if orphaned(segment):
            segment.rename(segment.with_suffix(".ready"))
    total = 0
    for segment in sorted(folder.glob("*.ready")):
        try:
            total += convert(segment, decisions_folder(home))
        except (OSError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  # whatever it holds: it must not hold up the others
            # Of another version, or of somebody else: it stays for the audit.
            segment.rename(segment.with_suffix(".foreign"))
            kind = type(error).__name__
            print(f"decision log: {segment.name} stays in the journal: {kind}: {error}", file=sys.stderr)
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bentos.log.decision_files", description=__doc__.split("\n\n")[0]
    )
    # The worker names itself: asking for the parent here would come too late if it died meanwhile.
    parser.add_argument(
        "--follow", type=int, metavar="PID", help="keep converting until the parent PID is gone"
    )
    options = parser.parse_args(arguments)
    configured = settings()
    home = configured.home
    if options.follow is not None:
        # The supervisor signals a worker's children with it: stay for what the worker closes last.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    patience = Patience(_PATIENCE_S if configured.machine.spare_time else 0.0)
    while True:
        last = options.follow is None or os.getppid() != options.follow
        try:
            converted = convert_all(home)
            if configured.cluster.store_url is None:  # else the host that has everybody's decisions does it
                convert_labels(home)
        except OSError as error:  # a full disk: what is in the journal stays there until it has room
            print(f"decision log: cannot write parquet: {error.strerror}", file=sys.stderr)
            converted = 0
        if last:
            if options.follow is None:
                print(f"{converted} decisions converted")
            return 0
        while True:
            time.sleep(1.0)
            if patience.over() or os.getppid() != options.follow:
                break


if __name__ == "__main__":
    raise SystemExit(main())
