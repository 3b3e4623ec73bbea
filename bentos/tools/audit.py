"""Prove that the decision log is whole and unaltered: `python -m bentos.tools.audit`.

Every entry of a series carries the code of the entry before it, and its own code covers all of its
fields, under a key of the deployment that the storage does not have. The audit reads the parquet and
the journal, encodes each row again, and checks that codes match, that each series counts up from 0
without a gap, and that each entry links to the one before. It holds one segment at a time.

What no chain can show is that its end is gone, or all of it. Three lists show that, too: `--heads`
takes what workers have put out elsewhere every minute (`bentos.log.heads`), `--remembered` the
answers that Redis remembers for 24 hours (of all services that share the Redis: bring their logs
together first), and `--answered FILE` (one transaction id a line) a caller's list.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.base.caller import Caller
from bentos.effects.outbox import remembered_answers
from bentos.log.decision_log import GENESIS, read_entries
from bentos.log.heads import Head, read_heads
from fraud.contract.answer import Answer
from fraud.contract.cards import redact
from fraud.features.feature_list import VECTOR
from stores.decisions import (
    COLUMNS,
    HASH,
    MAPS,
    RECORD,
    TIMES,
    VECTOR_COLUMN,
    decisions_folder,
    journal_folder,
    parquet_schema,
)
from stores.kafka import KafkaError
from stores.key_file import KeyringError
from stores.keys import Seal, open_keys
from stores.settings import settings

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode
_decode_answer = msgspec.json.Decoder(Answer).decode
_SHOWN: Final = (
    "series", "sequence", "key", "previous_hash", "transaction_id", "decision", "score", "model_version",
    "variant",
)  # fmt: skip

#: Where each feature of this version stands.
_PLACES: Final = {name: place for place, name in enumerate(VECTOR)}

#: What was decided, as far as an answer shows it: decision, score, model version, variant.
Outcome = tuple[str, float | None, str | None, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the audit needs of one decision. `hash` is the one that is stored beside it."""

    series: str
    sequence: int
    previous: bytes
    transaction_id: str
    outcome: Outcome
    hash: bytes
    altered: bool
    where: str


@dataclass(slots=True)
class Findings:
    """The result: `problems` is empty when the log is whole and unaltered."""

    entries: int = 0
    series: int = 0
    problems: list[str] = field(default_factory=list)


def features_of(table: pa.Table) -> list[str]:
    """The columns of a decision file that are features: its own, as a version before may have had others."""
    return [name for name in table.column_names if name not in RECORD and name != HASH]


def as_written(table: pa.Table, path: Path) -> str | None:
    """What of a file's frame is not as the converter writes it, or None.

    Codes cover values. Which column is which, in what unit times are and which hour a file stands under are
    what readers go by besides.
    """
    features = features_of(table)
    if not table.schema.equals(parquet_schema(tuple(features))):
        return "has columns of other types or in another order than the log's"
    known = [_PLACES[name] for name in features if name in _PLACES]
    if known != sorted(known) or any(name not in _PLACES for name in features[: len(known)]):
        return "has its features' names in another order than they are written"
    hours = pc.unique(pc.strftime(table.column("decided_at"), format="date=%Y-%m-%d/hour=%H")).to_pylist()
    if hours not in ([], [f"{path.parent.parent.name}/{path.parent.name}"]):
        return "stands under another hour than its entries were decided in"
    return None


def rows_as_records(table: pa.Table) -> Iterator[bytes]:
    """Each row of a decision file as the bytes that its hash covers."""
    features = features_of(table)
    vectors = np.ascontiguousarray(
        np.stack([table.column(name).to_numpy(zero_copy_only=False) for name in features], axis=1), "<f8"
    )
    columns: dict[str, list[Any]] = {}
    for name in RECORD:
        if name == VECTOR_COLUMN:
            continue
        column = table.column(name)
        if name in TIMES:
            column = column.cast(pa.int64())
        elif COLUMNS[name] == "times":
            column = column.cast(pa.list_(pa.int64()))
        elif COLUMNS[name] == "times by name":
            column = pa.chunked_array(
                [chunk.cast(pa.map_(pa.string(), pa.int64())) for chunk in column.chunks],
                pa.map_(pa.string(), pa.int64()),
            )
        columns[name] = column.to_pylist()
    for row in range(table.num_rows):
        values = [
            vectors[row].tobytes() if name == VECTOR_COLUMN
            else [tuple(pair) for pair in columns[name][row]] if name in MAPS
            else columns[name][row]
            for name in RECORD
        ]  # fmt: skip
        yield _encode(values)


def _of_file(path: Path, seal: Seal, problems: list[str]) -> Iterator[Entry]:
    try:
        table = pq.read_table(path, partitioning=None)
        if (strange := as_written(table, path)) is not None:
            problems.append(f"{path.name}: {strange}")
        rows = zip(*[table.column(name).to_pylist() for name in (*_SHOWN, HASH)], strict=True)
        records = list(rows_as_records(table))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        problems.append(f"{path.name}: cannot be read: {type(error).__name__}")
        return
    for record, (*shown, stored) in zip(records, rows, strict=True):
        yield _entry(shown, stored, record, seal, path)


def _of_journal(path: Path, seal: Seal, problems: list[str]) -> Iterator[Entry]:
    places = [RECORD.index(name) for name in _SHOWN]
    for record, code in read_entries(path):
        try:
            fields = _decode(record)
            shown = [fields[place] for place in places]
            if not isinstance(shown[0], str) or type(shown[1]) is not int:
                raise ValueError("no series and number")
        except (ValueError, IndexError, RecursionError):  # msgspec's errors are such
            problems.append(f"{path.name}: holds what is no entry")
            return
        yield _entry(shown, code, record, seal, path)


def _entry(shown: Sequence[Any], stored: bytes, record: bytes, seal: Seal, path: Path) -> Entry:
    series, sequence, key, previous, transaction, *outcome = shown
    try:
        forged = not seal.is_code(record, stored, bytes.fromhex(key))
    except (TypeError, ValueError):
        forged = True
    return Entry(
        series, sequence, previous, transaction, cast("Outcome", tuple(outcome)), stored, forged, path.name
    )


def _segments(home: Path) -> Iterator[tuple[str, list[list[Path]]]]:
    """Each series with the files of its segments, in order."""
    root = decisions_folder(home)
    # Every file, and not those that a plan of compaction would leave to readers: nothing compacts this log.
    paths = [path for path in root.rglob("*.parquet") if not path.name.startswith(".")]
    paths += [
        path for pattern in ("*.ready", "*.open", "*.foreign") for path in journal_folder(home).glob(pattern)
    ]
    by_series: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(paths):
        series, _, segment = path.stem.rpartition("-")
        by_series.setdefault(series, {}).setdefault(segment, []).append(path)
    for series, segments in sorted(by_series.items()):
        yield series, [segments[name] for name in sorted(segments)]


def _read_segment(series: str, paths: Sequence[Path], seal: Seal, problems: list[str]) -> list[Entry]:
    """The entries in a segment's files by sequence; one that stands in file and journal counts once."""
    found: dict[int, Entry] = {}
    for path in paths:
        read = _of_file if path.suffix == ".parquet" else _of_journal
        for entry in read(path, seal, problems):
            if entry.series != series:
                problems.append(f"{path.name}: holds an entry of the series {entry.series}")
                continue
            if entry.altered:
                problems.append(f"{path.name}: entry {entry.sequence} of {series} was altered or forged")
            known = found.setdefault(entry.sequence, entry)
            if known.hash != entry.hash:
                problems.append(f"{path.name}: entry {entry.sequence} of {series} differs from {known.where}")
    return [found[sequence] for sequence in sorted(found)]


def audit(
    home: Path,
    seal: Seal,
    answered: Sequence[str] | None = None,
    remembered: Mapping[str, Outcome] | None = None,
    heads: Iterable[Head] = (),
) -> Findings:
    """Check every series under `home`, and that what was `answered`, is `remembered` or was put out as one
    of the `heads` is in it. `seal` is for the purpose `log`, retired keys included."""
    findings = Findings()
    problems = findings.problems
    missing = dict.fromkeys(answered or ())
    unproven = dict(remembered or {})
    put_out = {(head.series, head.entries - 1, head.hash): head for head in heads}
    for series, segments in _segments(home):
        findings.series += 1
        following, previous = 0, GENESIS
        for paths in segments:
            for entry in _read_segment(series, paths, seal, problems):
                findings.entries += 1
                if entry.sequence < following:
                    problems.append(f"{series}: entry {entry.sequence} is there twice")
                    continue
                if entry.sequence > following:
                    last = entry.sequence - 1
                    which = f"entry {last} is" if last == following else f"entries {following} to {last} are"
                    problems.append(f"{series}: {which} missing")
                elif entry.previous != previous:
                    problems.append(f"{series}: entry {entry.sequence} does not follow the one before it")
                following, previous = entry.sequence + 1, entry.hash
                put_out.pop((series, entry.sequence, entry.hash.hex()), None)
                missing.pop(entry.transaction_id, None)
                if unproven.get(entry.transaction_id) == entry.outcome:
                    del unproven[entry.transaction_id]
    problems += [
        f"{head.series}: had {head.entries} entries at {head.at}, of which the last is not in the log: "
        "cut off, replaced or lost"
        for head in put_out.values()
    ]
    problems += [f"transaction {name} was answered but is not in the log" for name in missing]
    problems += [f"transaction {name} was answered otherwise than the log says" for name in unproven]
    return findings


def outcomes(answers: Iterable[tuple[str, bytes | None]], problems: list[str]) -> dict[str, Outcome]:
    """Remembered answers (transaction id and JSON) as what they decided; what is none becomes a problem."""
    found: dict[str, Outcome] = {}
    for name, encoded in answers:
        try:
            answer = _decode_answer(encoded or b"")
        except msgspec.DecodeError:
            problems.append(f"what Redis remembers of transaction {_safe(name)} was written by somebody else")
            continue
        found[name] = (answer.decision, answer.fraud_score, answer.model_version, answer.variant)
    return found


def _safe(name: str) -> str:
    """An id that anybody may have written, for a terminal."""
    return redact(name[:64]) if name.isascii() and name.isprintable() else "(unprintable)"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bentos.tools.audit", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--answered", type=Path, help="file of transaction ids that callers were answered")
    parser.add_argument("--ids", metavar="NAME", help="the id space of the client whose list it is")
    parser.add_argument(
        "--remembered", action="store_true", help="check the answers that Redis remembers as well"
    )
    parser.add_argument(
        "--heads",
        metavar="PLACE",
        help="where heads were put out: a folder, a collected log, a Redis (redis://...), or kafka:TOPIC",
    )
    options = parser.parse_args(arguments)
    answered = options.answered.read_text().split() if options.answered else None
    if answered is not None and options.ids:
        answered = [Caller("", options.ids).inside(name) for name in answered]
    chosen = settings()
    # Before the log is read: what is remembered now was logged before.
    try:
        keys = open_keys(chosen)
    except KeyringError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    planted: list[str] = []
    remembered = None
    if options.remembered:
        seal = keys.seal("answers")
        remembered = outcomes(remembered_answers(chosen.redis.url, chosen.feast.project, seal), planted)
    heads = None
    if options.heads:
        try:
            heads = list(read_heads(options.heads, keys.seal("heads", retired=True), planted, chosen))
        except (OSError, KafkaError) as error:
            print(f"error: --heads {options.heads} cannot be read: {error}", file=sys.stderr)
            return 2
    findings = audit(chosen.home, keys.seal("log", retired=True), answered, remembered, heads or ())
    findings.problems += planted
    print(f"{findings.entries:,} decisions in {findings.series} series")
    for problem in findings.problems[:20]:
        print(f"  {problem}", file=sys.stderr)
    if findings.problems:
        print(f"{len(findings.problems)} problems: the log is not whole", file=sys.stderr)
        return 1
    proofs = [
        f"all {len(names):,} {what} are in it"
        for names, what in (
            (answered, "answered transactions"),
            (remembered, "remembered answers"),
            (heads, "heads"),
        )
        if names is not None
    ]
    print("; ".join(["whole and unaltered", *proofs]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
