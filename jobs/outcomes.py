"""Outcomes to their payments: what counts as spent changes in the stream, and all is kept in the lake.

    python -m jobs.outcomes follow              # beside the stream: settle what arrives, and read the topics
    python -m jobs.outcomes settle              # once
    python -m jobs.outcomes list                # what waits for its payment
    python -m jobs.outcomes import FILE.csv     # columns as in POST /v1/outcomes

A payment is known once the stream has taken it into the lake, so that a change stands behind it in its
partition. Until then, or where its id stands for none, an outcome waits aside; it is looked for again, less and
less often, and listed. One that comes again (same transaction, kind and `outcome_id`) changes nothing. What
has been worked out is written down before it is told: after a crash it is told again, and counted once.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.log.labels import SUMMARY, Reporter, Summary
from bentos.log.outcomes import KeptOutcome, OutcomeStore, outcomes_folder, parse_outcomes
from fraud.contract.money import reference_cents
from fraud.features.entities import ENTITIES
from jobs.report_files import take_rows
from jobs.report_topics import Topics, open_topics
from stores.event_log import partition_of
from stores.files import write_whole
from stores.keys import Seal, open_keys
from stores.lake import TRANSACTIONS, by_event_date, epoch_us, microseconds
from stores.lake_files import files_of_date, write_parquet
from stores.outcome_files import OUTCOME_SCHEMA, outcomes_on
from stores.outcomes import OUTCOMES, Effect, spent_minor
from stores.redis_clients import AWAY
from stores.settings import Settings, settings
from stores.spool import frame, orphaned, read_frames
from streaming.ingest.control import Spent, encode_spent
from streaming.log.batch import LogAwayError
from streaming.log.publish import open_writer

WAITING: Final = "waiting.frames"
ASIDE: Final = "aside"
GIVE_UP: Final = timedelta(days=30)
#: How far back a payment is looked for whose time the sender does not know, and about a time that he states.
_BACK: Final = timedelta(days=31)
_ABOUT: Final = timedelta(days=1)
_SOON, _LATER = 5.0, 6 * 3600.0
_EVERY_S: Final = 1.0
_PAYMENT: Final = (
    "transaction_id", "event_timestamp", "created_timestamp", "amount_minor", "currency", "amount_reference",
    *[entity.key for entity in ENTITIES],
)  # fmt: skip
_log = logging.getLogger(__name__)


class Waiting(msgspec.Struct, frozen=True):
    """An outcome whose payment is not known yet. Times in seconds since 1970."""

    outcome: KeptOutcome
    since: float
    due: float
    wait: float = _SOON


@dataclass
class Settled:
    """What one turn did: outcomes settled, repeated ones passed over, still waiting, gone aside."""

    settled: int = 0
    repeated: int = 0
    waiting: int = 0
    aside: list[tuple[KeptOutcome, str]] = field(default_factory=list)


_decode: Final = msgspec.json.Decoder(KeptOutcome).decode
_decode_waiting: Final = msgspec.json.Decoder(Waiting).decode
_encode: Final = msgspec.json.Encoder().encode


def read_waiting(home: Path) -> list[Waiting]:
    """The outcomes that wait for their payment."""
    path = outcomes_folder(home) / WAITING
    return [_decode_waiting(record) for record in read_frames(path)] if path.is_file() else []


def settle(configured: Settings, now: float | None = None) -> Settled:
    """Take one turn; raises `LogAwayError` or what redis-py raises while the event log is away: the next turn
    goes on there. Processes take turns: one that finds another at it leaves it to that one."""
    folder = outcomes_folder(configured.home)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / ".turn").open("w") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return Settled()
        _finish(configured, folder)
        done = _work_out(configured, folder, time.time() if now is None else now)
        _finish(configured, folder)
        return done


def _work_out(configured: Settings, folder: Path, now: float) -> Settled:
    segments = [path for path in sorted(folder.glob("*.ready")) if path.is_file()] + [
        path for path in sorted(folder.glob("*.open")) if path.is_file() and orphaned(path)
    ]
    kept = read_waiting(configured.home)
    looked = [waiting for waiting in kept if waiting.due <= now]
    if not segments and not looked:
        return Settled(waiting=len(kept))
    done, strange = Settled(), []
    for segment in segments:
        for record in read_frames(segment):
            try:
                looked.append(Waiting(_decode(record), now, now))
            except (ValueError, RecursionError):
                strange.append(record)
    payments = _payments(configured.lake, [waiting.outcome for waiting in looked])
    still = [waiting for waiting in kept if waiting.due > now]
    known: dict[str, list[KeptOutcome]] = {}
    for waiting in looked:
        if waiting.outcome.transaction_id in payments:
            known.setdefault(waiting.outcome.transaction_id, []).append(waiting.outcome)
        elif now - waiting.since > GIVE_UP.total_seconds():
            done.aside.append((waiting.outcome, "no payment of this id became known"))
        else:
            wait = min(2 * waiting.wait, _LATER)
            still.append(msgspec.structs.replace(waiting, due=now + waiting.wait, wait=wait))
    rows = _rows(configured, known, payments, now, done)
    if rows:
        _pend(folder, rows)
    once = {waiting.outcome.key: waiting for waiting in reversed(still)}
    ordered = sorted(once.values(), key=lambda waiting: waiting.since)
    write_whole(folder / WAITING, b"".join(frame(_encode(waiting)) for waiting in ordered))
    _put_aside(folder, done, strange)
    done.waiting = len(ordered)
    aside = sum(1 for path in (folder / ASIDE).glob("*.frames") for _ in read_frames(path))
    write_whole(folder / SUMMARY, _encode(Summary(len(ordered), aside)))
    for segment in segments:
        segment.unlink(missing_ok=True)
    return done


def _put_aside(folder: Path, done: Settled, strange: Sequence[bytes]) -> None:
    records = [_encode({"why": why, "outcome": outcome}) for outcome, why in done.aside]
    if records or strange:
        (folder / ASIDE).mkdir(mode=0o700, exist_ok=True)
        content = b"".join(frame(record) for record in [*records, *strange])
        write_whole(folder / ASIDE / f"{time.time_ns()}.frames", content)


def _payments(lake: Path, outcomes: Sequence[KeptOutcome]) -> dict[str, dict[str, Any]]:
    """The lake's rows of the payments that `outcomes` name, by id; of copies the first that was known."""
    if not outcomes:
        return {}
    days: set[date] = set()
    for outcome in outcomes:
        first = (outcome.event_time or outcome.known_at) - (_ABOUT if outcome.event_time else _BACK)
        last = (outcome.event_time or outcome.known_at) + _ABOUT
        days |= {first.date() + timedelta(days=step) for step in range((last.date() - first.date()).days + 1)}
    ids = pa.array(sorted({outcome.transaction_id for outcome in outcomes}), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for day in sorted(days):
        folder = lake / TRANSACTIONS / f"date={day:%Y-%m-%d}"
        for path in files_of_date(folder) if folder.is_dir() else []:
            try:
                with pq.ParquetFile(path) as file:
                    table = file.read(columns=list(_PAYMENT))
            except FileNotFoundError:  # compacted meanwhile: the next turn finds it
                continue
            for row in table.filter(pc.is_in(table.column("transaction_id"), value_set=ids)).to_pylist():
                before = found.setdefault(row["transaction_id"], row)
                if row["created_timestamp"] < before["created_timestamp"]:
                    found[row["transaction_id"]] = row
    return found


def _rows(
    configured: Settings, known: dict[str, list[KeptOutcome]], payments: dict[str, dict[str, Any]],
    now: float, done: Settled,
) -> list[dict[str, Any]]:  # fmt: skip
    """The lake's rows of new outcomes, with the change to be told to the stream where there is one."""
    rows: list[dict[str, Any]] = []
    seal = open_keys(configured).seal("control")
    days = {payments[name]["event_timestamp"].date() for name in known}
    before: dict[str, list[dict[str, Any]]] = {}
    for day in days:
        table = outcomes_on(configured.lake, day)
        for row in table.filter(pc.is_in(table.column("transaction_id"), pa.array(list(known)))).to_pylist():
            before.setdefault(row["transaction_id"], []).append(row)
    now_us = int(now * 1e6)
    for name, outcomes in known.items():
        payment, earlier = payments[name], before.get(name, [])
        keys = {f"{name} {row['kind']} {row['outcome_id']}" for row in earlier}
        effects = [Effect(row["kind"], row["amount_minor"]) for row in earlier]
        for outcome in sorted(outcomes, key=lambda each: each.known_at):
            if outcome.key in keys:
                done.repeated += 1
                continue
            if outcome.currency not in (None, payment["currency"]):
                done.aside.append((outcome, "its currency is not the payment's"))
                continue
            keys.add(outcome.key)
            was = _reference(payment, effects)
            effects.append(Effect(outcome.kind, outcome.amount_minor))
            now_us = max(now_us + 1, microseconds(payment["created_timestamp"]) + 1)
            rows.append(_row(outcome, payment, was, _reference(payment, effects), now_us, seal))
            done.settled += 1
    return rows


def _reference(payment: dict[str, Any], effects: Iterable[Effect]) -> int:
    """What of the payment is spent, in reference cents."""
    spent = spent_minor(payment["amount_minor"], effects)
    if spent == payment["amount_minor"]:
        return int(payment["amount_reference"])
    return reference_cents(spent, payment["currency"])


def _row(
    outcome: KeptOutcome, payment: dict[str, Any], before: int, after: int, now_us: int, seal: Seal
) -> dict[str, Any]:
    event_us = microseconds(payment["event_timestamp"])
    payload = None
    if before != after:
        ids = tuple([payment[entity.key] for entity in ENTITIES])
        payload = encode_spent(
            seal,
            Spent(outcome.transaction_id, event_us // 1000, ids, before, after, now_us // 1000, outcome.key),
        )
    return {
        "transaction_id": outcome.transaction_id, "outcome_id": outcome.outcome_id, "kind": outcome.kind,
        "event_timestamp": payment["event_timestamp"], "created_timestamp": now_us,
        "reported_timestamp": outcome.known_at, **{entity.key: payment[entity.key] for entity in ENTITIES},
        "currency": payment["currency"], "amount_minor": outcome.amount_minor, "reason": outcome.reason,
        "client": outcome.client, "spent_before": before, "spent_after": after, "payload": payload,
    }  # fmt: skip


_PENDING: Final = OUTCOME_SCHEMA.append(pa.field("payload", pa.binary()))


def _pend(folder: Path, rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in _PENDING.names}
    columns["created_timestamp"] = pa.array(columns["created_timestamp"], pa.int64()).cast(
        OUTCOME_SCHEMA.field("created_timestamp").type
    )
    named = hashlib.blake2b(
        _encode([row["outcome_id"] + row["transaction_id"] for row in rows]), digest_size=12
    )
    write_parquet(pa.table(columns, schema=_PENDING), folder / f"pending-{named.hexdigest()}.parquet")


def _finish(configured: Settings, folder: Path) -> None:
    """Bring what was worked out into the lake, and tell the stream."""
    for path in sorted(folder.glob("pending-*.parquet"), key=lambda path: path.stat().st_mtime_ns):
        table = pq.read_table(path)
        name = f"{OUTCOMES}-{path.stem.removeprefix('pending-')}"
        for day, rows in by_event_date(table.select(OUTCOME_SCHEMA.names)):
            write_parquet(rows, configured.lake / OUTCOMES / day / f"{name}.parquet")
        order = epoch_us(table.column("created_timestamp")).argsort(kind="stable")
        told = table.select(["customer_id", "payload"]).take(pa.array(order)).to_pylist()
        with open_writer(configured) as writer:
            for row in told:
                if row["payload"] is not None:
                    partition = partition_of(row["customer_id"], configured.event_log.partitions)
                    writer.publish_raw(partition, row["payload"], row["customer_id"])
            writer.flush()
        path.unlink()


def follow(configured: Settings, stopping: threading.Event) -> None:
    """Settle once a second what arrives, by HTTP or by the topics, until `stopping` is set."""
    topics: Topics | None = None
    while not stopping.wait(_EVERY_S):
        try:
            topics = topics or open_topics(configured)
            topics.take()
            done = settle(configured)
        except (LogAwayError, *AWAY) as error:
            _log.warning("the event log is away (%s); outcomes wait", type(error).__name__)
            continue
        if done.settled or done.aside:
            _log.info("%s outcomes settled, %s aside, %s wait", done.settled, len(done.aside), done.waiting)
    if topics is not None:
        topics.close()


def _list(home: Path) -> None:
    waiting = sorted(read_waiting(home), key=lambda each: each.since)
    for each in waiting:
        one, days = each.outcome, (time.time() - each.since) / 86_400
        print(f"{one.transaction_id}  {one.kind} {one.outcome_id} by {one.client}, {days:.1f} days")
    folder = outcomes_folder(home) / ASIDE
    records = [record for path in sorted(folder.glob("*.frames")) for record in read_frames(path)]
    for record in records:
        try:
            found = msgspec.json.decode(record)
            print(f"aside: {found['outcome']['transaction_id']}  {found['outcome']['kind']}: {found['why']}")
        except (ValueError, KeyError, TypeError):
            print("aside: a record that is no outcome")
    print(f"{len(waiting)} wait for their payment; {len(records)} went aside, in {folder}")


def main(arguments: list[str] | None = None) -> int:
    """`python -m jobs.outcomes follow|settle|list|import`."""
    parser = argparse.ArgumentParser(prog="python -m jobs.outcomes", description=__doc__)
    parser.add_argument("command", choices=("follow", "settle", "list", "import"))
    parser.add_argument("file", nargs="?", type=Path, help="for import: a CSV with a header")
    chosen = parser.parse_args(arguments)
    configured = settings()
    logging.basicConfig(level=configured.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if chosen.command == "list":
        _list(configured.home)
    elif chosen.command == "import":
        if chosen.file is None:
            parser.error("import needs a FILE")
        store = OutcomeStore(configured.home)
        reporter = Reporter("import", admin=True)
        taken, refused = take_rows(
            chosen.file, lambda raw: parse_outcomes(raw, datetime.now(UTC), reporter), store.append
        )
        store.close()
        for line in refused:
            print(line, file=sys.stderr)
        print(f"{taken} outcomes taken, {len(refused)} rows refused")
        return 1 if refused else 0
    elif chosen.command == "settle":
        done = settle(configured)
        print(
            f"{done.settled} settled, {done.repeated} known already, {done.waiting} wait, "
            f"{len(done.aside)} went aside"
        )
    else:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        follow(configured, stopping)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
