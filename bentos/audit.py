"""Prove that the decision log is whole and unaltered: `python -m bentos.audit`.

Every entry of a series carries the hash of the entry before it, and its own hash covers all of its
fields. The audit reads the parquet and the journal, encodes each row again, and checks that hashes
match, that each series counts up from 0 without a gap, and that each entry links to the one
before. With `--answered FILE` (one transaction id a line: what callers were answered) it also
checks that none of them is missing. What no hash chain can show is an end cut off together with
all copies of it; `--answered` does.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bentos.decision_files import SCHEMA
from bentos.decision_log import GENESIS, RECORD, journal_folder
from bentos.spool import read_frames
from fraud.features import VECTOR
from fraud.settings import settings

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode
_MAPS = ("feature_status", "view_timestamps", "shadow_scores")
_TIMES = ("event_timestamp", "created_timestamp", "decided_at")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the audit needs of one decision."""

    series: str
    sequence: int
    previous: bytes
    hash: bytes
    transaction_id: str
    where: str


@dataclass(slots=True)
class Findings:
    """The result: `problems` is empty when the log is whole and unaltered."""

    entries: int = 0
    series: int = 0
    problems: list[str] = field(default_factory=list)


def rows_as_records(table: pa.Table) -> Iterator[bytes]:
    """Each row of a decision file as the bytes that its hash covers."""
    vectors = np.ascontiguousarray(
        np.stack([table.column(name).to_numpy(zero_copy_only=False) for name in VECTOR], axis=1), "<f8"
    )
    columns: dict[str, list[Any]] = {}
    for name in RECORD:
        if name == "vector":
            continue
        column = table.column(name)
        if name in _TIMES:
            column = column.cast(pa.int64())
        elif name == "view_timestamps":
            column = pa.chunked_array(
                [chunk.cast(pa.map_(pa.string(), pa.int64())) for chunk in column.chunks],
                pa.map_(pa.string(), pa.int64()),
            )
        columns[name] = column.to_pylist()
    for row in range(table.num_rows):
        values = [
            vectors[row].tobytes() if name == "vector"
            else [tuple(pair) for pair in columns[name][row]] if name in _MAPS
            else columns[name][row]
            for name in RECORD
        ]  # fmt: skip
        yield _encode(values)


def _of_file(path: Path, problems: list[str]) -> Iterator[Entry]:
    try:
        table = pq.read_table(path, schema=SCHEMA, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        problems.append(f"{path.name}: cannot be read: {type(error).__name__}")
        return
    names = ("series", "sequence", "previous_hash", "hash", "transaction_id")
    rows = zip(*[table.column(name).to_pylist() for name in names], strict=True)
    for record, (series, sequence, previous, stored, transaction) in zip(
        rows_as_records(table), rows, strict=True
    ):
        if hashlib.sha256(record).digest() != stored:
            problems.append(f"{path.name}: entry {sequence} of {series} was altered")
        yield Entry(series, sequence, previous, stored, transaction, path.name)


def _of_journal(path: Path) -> Iterator[Entry]:
    places = [RECORD.index(name) for name in ("series", "sequence", "previous_hash", "transaction_id")]
    for record in read_frames(path):
        fields = _decode(record)
        series, sequence, previous, name = (fields[place] for place in places)
        yield Entry(series, sequence, previous, hashlib.sha256(record).digest(), name, path.name)


def audit(home: Path, answered: Sequence[str] | None = None) -> Findings:
    """Check every series under `home`; a decision that stands in file and journal counts once."""
    findings = Findings()
    problems = findings.problems
    by_series: dict[str, dict[int, Entry]] = {}
    found: set[str] = set()
    root = home / "decisions"
    files = [path for path in sorted(root.rglob("*.parquet")) if not path.name.startswith(".")]
    entries = [entry for path in files for entry in _of_file(path, problems)]
    for pattern in ("*.ready", "*.open"):
        for path in sorted(journal_folder(home).glob(pattern)):
            entries += _of_journal(path)
    for entry in entries:
        known = by_series.setdefault(entry.series, {}).get(entry.sequence)
        if known is not None and known.hash != entry.hash:
            problems.append(
                f"{entry.where}: entry {entry.sequence} of {entry.series} differs from {known.where}"
            )
        by_series[entry.series][entry.sequence] = entry
        found.add(entry.transaction_id)
    for series, chain in by_series.items():
        findings.series += 1
        findings.entries += len(chain)
        previous = GENESIS
        for sequence in range(max(chain) + 1):
            one = chain.get(sequence)
            if one is None:
                problems.append(f"{series}: entry {sequence} is missing")
                following = chain.get(sequence + 1)
                previous = following.previous if following else previous
                continue
            if one.previous != previous:
                problems.append(f"{series}: entry {sequence} does not follow the one before it")
            previous = one.hash
    for name in answered or ():
        if name not in found:
            problems.append(f"transaction {name} was answered but is not in the log")
    return findings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bentos.audit", description=__doc__.split("\n\n")[0])
    parser.add_argument("--answered", type=Path, help="file of transaction ids that callers were answered")
    options = parser.parse_args(arguments)
    answered = options.answered.read_text().split() if options.answered else None
    findings = audit(settings().home, answered)
    print(f"{findings.entries:,} decisions in {findings.series} series")
    for problem in findings.problems[:20]:
        print(f"  {problem}", file=sys.stderr)
    if findings.problems:
        print(f"{len(findings.problems)} problems: the log is not whole", file=sys.stderr)
        return 1
    print(
        "whole and unaltered" + (f"; all {len(answered)} answered transactions are in it" if answered else "")
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
