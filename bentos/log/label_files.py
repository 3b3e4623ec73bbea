"""From the labels that were taken to the lake, off the serving path, by way of the decisions they are about.

A label goes into the lake once its transaction is known: decided here (the decision log) or taken from
the event log (the lake). It gets that transaction's event time. One whose transaction is not known yet, or
whose id stands for several that all have another time, waits in `<home>/labels/waiting.frames` and is looked
for again, less and less often; after `GIVE_UP` it goes aside, as does what cannot be read. Nothing is lost,
and none stops those behind it. `python -m bentos.tools.labels` lists both.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.log.labels import EARLIEST, LATEST_AHEAD, SUMMARY, KeptLabel, Summary, labels_folder
from stores.decisions import decisions_folder
from stores.lake import LABEL_SCHEMA, TIMESTAMP, microseconds, moment, write_labels
from stores.lake_files import files_of_date
from stores.spool import frame, orphaned, read_frames

WAITING: Final = "waiting.frames"
ASIDE: Final = "aside"
#: Labels that wait at most; those beyond go aside.
MOST_WAITING: Final = 100_000
GIVE_UP: Final = timedelta(days=30)
#: Seconds until a label is looked for again: doubled each time, from the first to the second.
_SOON, _LATER = 10.0, 6 * 3600.0
#: Decisions are looked for in the hours that have just passed, and a day about the event: issuers state
#: local dates.
_JUST: Final = tuple(timedelta(hours=hours) for hours in (-1, 0, 1, 2))
_ABOUT: Final = tuple(timedelta(hours=hours) for hours in range(-25, 27))
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


class Waiting(msgspec.Struct, frozen=True):
    """A label whose transaction is not known yet. Times in seconds since 1970."""

    label: KeptLabel
    since: float
    due: float
    wait: float = _SOON


_decode = msgspec.json.Decoder(KeptLabel).decode
_decode_waiting = msgspec.json.Decoder(Waiting).decode
_encode = msgspec.json.Encoder().encode


def read_waiting(home: Path) -> list[Waiting]:
    """The labels that wait; what cannot be read is passed over."""
    path = labels_folder(home) / WAITING
    return list(_readable(path)) if path.is_file() else []


def _readable(path: Path) -> Iterator[Waiting]:
    for record in read_frames(path):
        try:
            yield _decode_waiting(record)
        except (ValueError, RecursionError):
            continue


def convert_labels(home: Path, now: float | None = None) -> int:
    """Bring closed (or abandoned) segments, and what waited, into the lake; return how many labels.

    Processes take turns: one that finds another at it leaves it to that one.
    """
    folder = labels_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".turn").open("w") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0
        return _convert(home, folder, time.time() if now is None else now)


def _convert(home: Path, folder: Path, now: float) -> int:
    segments = [path for path in sorted(folder.glob("*.ready")) if path.is_file()] + [
        path for path in sorted(folder.glob("*.open")) if path.is_file() and orphaned(path)
    ]
    kept = read_waiting(home)
    due = [waiting for waiting in kept if waiting.due <= now]
    if not segments and not due:
        return 0
    fresh = [label for segment in segments for label in _labels_of(segment)]
    looked = [*due, *(Waiting(label, now, now) for label in fresh)]
    times = _event_times(home, [waiting.label for waiting in looked], now)
    matched, still = [], [waiting for waiting in kept if waiting.due > now]
    for waiting in looked:
        event_us = _chosen(waiting.label, times)
        if event_us is None:
            wait = min(2 * waiting.wait, _LATER)
            still.append(msgspec.structs.replace(waiting, due=now + waiting.wait, wait=wait))
        else:
            matched.append(msgspec.structs.replace(waiting.label, event_time=moment(event_us)))
    if matched:
        # The same labels have the same name: writing them twice, after a crash, changes nothing.
        name = hashlib.blake2b(b"".join(map(_encode, matched)), digest_size=12).hexdigest()
        write_labels(_table(matched), home / "lake", name=f"labels-{name}")
    _keep_waiting(folder, still, now)
    for segment in segments:
        segment.unlink(missing_ok=True)
    return len(matched)


def _labels_of(segment: Path) -> list[KeptLabel]:
    """A segment's labels; records that are none go aside, with their bytes."""
    labels, strange = [], []
    for record in read_frames(segment):
        try:
            label = _decode(record)
            event, known = label.event_time.astimezone(UTC), label.known_at.astimezone(UTC)
            if not EARLIEST <= event <= known + LATEST_AHEAD < _LATEST:
                raise ValueError("a time out of bounds")
            labels.append(msgspec.structs.replace(label, event_time=event, known_at=known))
        except (ValueError, OverflowError, RecursionError):
            strange.append(record)
    if strange:
        _aside(segment.parent, f"{segment.stem}.foreign", strange)
        print(f"labels: {len(strange)} records of {segment.name} are no labels: aside", file=sys.stderr)
    return labels


def _aside(folder: Path, name: str, records: Sequence[bytes]) -> None:
    (folder / ASIDE).mkdir(mode=0o700, exist_ok=True)
    _write(folder / ASIDE / name, b"".join(map(frame, records)))


def _write(path: Path, content: bytes) -> None:
    if path.is_dir():  # somebody's, where a file of ours belongs
        path.rename(path.with_name(f".{path.name}.{time.time_ns()}"))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fdatasync(file.fileno())
    unfinished.replace(path)


def _keep_waiting(folder: Path, still: Sequence[Waiting], now: float) -> None:
    # A segment that was read twice, after a crash, brings its labels twice.
    once = {_encode(waiting.label): waiting for waiting in reversed(still)}
    ordered = sorted(once.values(), key=lambda waiting: waiting.since)
    patient = [waiting for waiting in ordered if now - waiting.since < GIVE_UP.total_seconds()]
    given_up = [waiting for waiting in ordered if now - waiting.since >= GIVE_UP.total_seconds()]
    patient, pushed_out = _in_turn(patient)
    given_up += pushed_out
    if given_up:
        _aside(folder, f"unmatched-{time.time_ns()}.frames", [_encode(waiting) for waiting in given_up])
    _write(folder / WAITING, b"".join(frame(_encode(waiting)) for waiting in patient))
    aside = sum(sum(1 for _ in read_frames(path)) for path in (folder / ASIDE).glob("[!.]*"))
    _write(folder / SUMMARY, _encode(Summary(len(patient), aside)))


def _in_turn(waiting: Sequence[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
    """Those of `waiting`, oldest first, that there is room for, and the others.

    Clients take turns: one that sends what never matches pushes out its own labels, not another's.
    """
    if len(waiting) <= MOST_WAITING:
        return list(waiting), []
    turns: Counter[str] = Counter()
    ranked = []
    for place, one in enumerate(waiting):
        ranked.append((turns[one.label.client], place))
        turns[one.label.client] += 1
    stay = {place for _, place in sorted(ranked)[:MOST_WAITING]}
    return (
        [one for place, one in enumerate(waiting) if place in stay],
        [one for place, one in enumerate(waiting) if place not in stay],
    )


def _chosen(label: KeptLabel, times: Mapping[str, set[int]]) -> int | None:
    """The event time of the label's transaction: the one it names, or the only one under its id."""
    found = times.get(label.transaction_id, set())
    wanted = microseconds(label.event_time)
    if wanted in found:
        return wanted
    (only,) = found if len(found) == 1 else (None,)
    # Nothing is known before it happened.
    return only if only is not None and only <= microseconds(label.known_at) else None


def _event_times(home: Path, labels: Sequence[KeptLabel], now: float) -> dict[str, set[int]]:
    """Event times (microseconds) of the transactions that the labels name, by id."""
    found: dict[str, set[int]] = {}
    ids = pa.array(sorted({label.transaction_id for label in labels}), pa.string())
    for path in (*_decision_files(home, labels, now), *_lake_files(home, labels)):
        try:
            with pq.ParquetFile(path) as file:
                table = file.read(columns=["transaction_id", "event_timestamp"])
            table = table.filter(pc.is_in(table.column("transaction_id"), value_set=ids))
            moments = table.column("event_timestamp").cast(TIMESTAMP).cast(pa.int64()).to_pylist()
        except (OSError, pa.ArrowException) as error:  # being replaced, or no parquet: another one's business
            print(f"labels: {path.name} cannot be read: {type(error).__name__}", file=sys.stderr)
            continue
        for name, event in zip(table.column("transaction_id").to_pylist(), moments, strict=True):
            if event is not None:
                found.setdefault(name, set()).add(event)
    return found


def _decision_files(home: Path, labels: Sequence[KeptLabel], now: float) -> list[Path]:
    until = datetime.fromtimestamp(now, UTC)
    hours = {label.event_time + step for label in labels for step in _ABOUT}
    hours |= {until - step for step in _JUST}
    folders = sorted({f"date={hour:%Y-%m-%d}/hour={hour:%H}" for hour in hours})
    return [
        path for name in folders for path in sorted((decisions_folder(home) / name).glob("[!.]*.parquet"))
    ]


def _lake_files(home: Path, labels: Sequence[KeptLabel]) -> list[Path]:
    about = (timedelta(days=-1), timedelta(), timedelta(days=1))
    days = sorted({f"date={label.event_time + step:%Y-%m-%d}" for label in labels for step in about})
    folders = [home / "lake" / "transactions" / day for day in days]
    return [path for folder in folders if folder.is_dir() for path in files_of_date(folder)]


def _table(labels: Sequence[KeptLabel]) -> pa.Table:
    return pa.table(
        {
            "transaction_id": [label.transaction_id for label in labels],
            "event_timestamp": [label.event_time for label in labels],
            "created_timestamp": [label.known_at for label in labels],
            "is_fraud": [label.is_fraud for label in labels],
            "source": [label.source for label in labels],
            "client": [label.client for label in labels],
            "reason": [label.reason for label in labels],
        },
        schema=LABEL_SCHEMA.append(pa.field("client", pa.string())).append(pa.field("reason", pa.string())),
    )
