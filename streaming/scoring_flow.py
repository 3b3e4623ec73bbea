"""The scoring flow: authorizations on the event log are scored in bulk, answers are published.

    authorizations/p ── validate ──► POST /v1/score/batch ──► predictions/p

Effectively once: a partition of `predictions` is written only by the partition of
`authorizations` of the same number. A snapshot holds both positions; what lies behind the
second after a crash was published already, is read back, and is not published again. The
service itself answers a transaction id once, so asking again changes nothing.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from fraud.contract.transaction import ContractError, encode_transaction, parse_transaction
from fraud.state.observation import transaction_key
from machine.timers import wake_on_time
from stores.redis_clients import AWAY
from stores.settings import Settings, settings
from streaming import metrics
from streaming.backoff import Backoff
from streaming.ingest.dead_letters import LetterBox, dead_letter, letters_folder
from streaming.ingest.framing import better_reason, json_inside
from streaming.ingest.letter_topic import letter_topic
from streaming.ingest.recent_ids import RecentIds
from streaming.log.batch import Batch, LogAwayError
from streaming.log.partitions import with_partitions
from streaming.log.publish import open_writer
from streaming.log.source import reader_opener
from streaming.scoring_client import ItemsRefusedError, ScoringClient, ServiceAwayError
from streaming.states.snapshots import SNAPSHOT_VERSION, check_version

_IDLE: Final = timedelta(milliseconds=2)
#: Most transactions in one bulk request: the service takes 1,024.
_MOST: Final = 256
_log = logging.getLogger(__name__)


class _Named(msgspec.Struct):
    """What an answer is read back for."""

    transaction_id: str


_decode_name: Final = msgspec.json.Decoder(_Named).decode


class ScoringPartition(StatefulSourcePartition[int, tuple[Any, ...]]):
    """One partition of authorizations; emits how many answers it published."""

    def __init__(
        self, configured: Settings, partition: int, resume: tuple[Any, ...] | None,
        stopping: threading.Event, *, drain: bool,
    ) -> None:  # fmt: skip
        position, published, recent = None, None, ()
        if resume is not None:
            check_version("scoring", resume[0])
            _, position, published, recent = resume
        horizon_ms = int(configured.stream.dedupe_hours * 3_600_000)
        reading = configured.changed(
            stream_batch=min(_MOST, configured.stream.batch), topic=configured.event_log.authorizations_topic
        )
        self._partition = partition
        self._reader = reader_opener(reading)(partition, position)
        self._recent = RecentIds(configured.stream.dedupe_ids, horizon_ms, recent)
        answers = configured.changed(topic=configured.event_log.predictions_topic)
        self._published = reader_opener(answers)(partition, published)
        self._already: set[str] | None = None
        self._publishes = not configured.serve.predictions
        self._writer = open_writer(configured, configured.event_log.predictions_topic)
        self._client = ScoringClient(configured)
        self._letters = LetterBox(
            letters_folder(configured, configured.event_log.authorizations_topic) / f"{partition:03d}",
            letter_topic(configured),
        )
        self._pending: dict[str, bytes] = {}
        self._done: tuple[Any, ...] = ()
        self._stopping = stopping
        self._drain = drain
        self._tail: str | None = None
        self._backoff = Backoff(configured.stream.patience_seconds, "the scoring service or the event log")
        self._awake: datetime | None = None

    def next_batch(self) -> list[int]:
        if self._stopping.is_set():
            self._finish()
        try:
            count = self._advance()
        except (LogAwayError, ServiceAwayError, *AWAY) as error:
            metrics.READ_RETRIES.inc()
            if not self._backoff.waiting:
                _log.warning("scoring waits (%s)", error)
            self._awake = datetime.now(UTC) + timedelta(seconds=self._backoff.next_delay())
            return []
        self._backoff.reset()
        if count is None:
            if self._drain and self._reader.reached(self._tail or "0"):
                self._finish()
            self._awake = datetime.now(UTC) + _IDLE
            return []
        self._awake = None
        return [count]

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> tuple[Any, ...]:
        """Positions and recent ids up to the last published batch, not the one under way."""
        self._letters.flush()
        found = self._done if self._pending else self._published_so_far()
        if found:
            self._reader.tell(found[1])
        return found

    def close(self) -> None:
        self._reader.close()
        self._published.close()
        self._writer.__exit__()
        self._letters.close()
        self._client.close()

    def _advance(self) -> int | None:
        """Score and publish one batch; None if there was nothing to read."""
        if self._already is None:
            self._already = self._read_back()
            if self._tail is None:
                self._tail = self._reader.end()
        if not self._pending:
            self._done = self._published_so_far()
            batch = self._reader.read()
            if not batch.payloads:
                return None
            self._pending = self._valid(batch)
        if self._pending:
            self._publish(self._scored(list(self._pending.values())))
        count = len(self._pending)
        self._pending = {}
        return count

    def _published_so_far(self) -> tuple[Any, ...]:
        return (
            SNAPSHOT_VERSION, self._reader.position(), self._published.position(), self._recent.snapshot()
        )  # fmt: skip

    def _valid(self, batch: Batch) -> dict[str, bytes]:
        """Transactions to score by id: valid, and not seen before."""
        now_ms = time.time_ns() // 1_000_000
        found: dict[str, bytes] = {}
        for payload, position in zip(batch.payloads, batch.positions, strict=True):
            if not payload:
                metrics.TOMBSTONES.labels(str(self._partition)).inc()
                continue
            try:
                transaction = parse_transaction(json_inside(payload) or payload, now_ms=now_ms)
                key, encoded = transaction_key(transaction.transaction_id), encode_transaction(transaction)
            except ContractError as refusal:
                self._refuse(position, better_reason(payload, refusal), payload)
                continue
            except Exception as unforeseen:  # noqa: BLE001  # no record may stop those behind it
                kind = type(unforeseen).__name__
                self._refuse(position, ContractError("(record)", f"could not be taken: {kind}"), payload)
                continue
            if self._recent.add(key, transaction.event_ms):
                found[transaction.transaction_id] = encoded
        return found

    def _refuse(self, position: str, error: ContractError, payload: bytes) -> None:
        metrics.DEAD_LETTERS.labels(str(self._partition)).inc()
        self._letters.add([dead_letter(self._partition, position, error, payload)])

    def _scored(self, payloads: list[bytes]) -> list[dict[str, Any]]:
        """Answers in order; a transaction for which the service refuses a whole request has an `error`."""
        try:
            return self._client.score(payloads)
        except ItemsRefusedError as refusal:
            if len(payloads) == 1:
                return [{"error": {"field": "(body)", "reason": f"was refused by the service: {refusal}"}}]
        middle = len(payloads) // 2  # one of them is why: asking again is harmless
        return self._scored(payloads[:middle]) + self._scored(payloads[middle:])

    def _publish(self, answers: list[dict[str, Any]]) -> None:
        already, self._already = self._already, None  # to be read back, if appending fails half-way
        assert already is not None
        for name, answer in zip(self._pending, answers, strict=True):
            if not self._publishes:  # the service does
                continue
            if name in already:
                already.discard(name)
                continue
            answer.setdefault("transaction_id", name)
            self._writer.publish_raw(self._partition, msgspec.json.encode(answer))
        self._writer.flush()
        self._already = already
        # What was just published lies before the position that the next snapshot holds.
        while self._published.read().payloads:
            pass

    def _read_back(self) -> set[str]:
        """Ids of the answers published after the snapshot that this run resumes from."""
        ids: set[str] = set()
        end = self._published.end()
        while not self._published.reached(end):
            for payload in self._published.read().payloads:
                try:
                    ids.add(_decode_name(payload).transaction_id)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue  # somebody else's: it answers nothing
        return ids

    def _finish(self) -> None:
        self._letters.flush()
        raise StopIteration


class AuthorizationSource(FixedPartitionedSource[int, tuple[Any, ...]]):
    """All partitions of the authorizations topic."""

    def __init__(self, configured: Settings, stopping: threading.Event, *, drain: bool) -> None:
        self._configured = configured
        self._stopping = stopping
        self._drain = drain

    def list_parts(self) -> list[str]:
        return [f"{partition:03d}" for partition in range(self._configured.event_log.partitions)]

    def build_part(
        self, step_id: str, for_part: str, resume_state: tuple[Any, ...] | None
    ) -> ScoringPartition:
        wake_on_time()  # this is the worker's thread
        return ScoringPartition(
            self._configured, int(for_part), resume_state, self._stopping, drain=self._drain
        )


class _Count(StatelessSinkPartition[int]):
    def write_batch(self, items: list[int]) -> None:
        metrics.SCORED.inc(sum(items))


class CountSink(DynamicSink[int]):
    """Counts published answers: a dataflow must end somewhere."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Count:
        return _Count()


def build_flow(configured: Settings, stopping: threading.Event, *, drain: bool = False) -> Dataflow:
    """The dataflow for `configured`; it ends when `stopping` is set (with `drain`: at the log's end)."""
    configured = with_partitions(configured, stopping, configured.event_log.authorizations_topic)
    flow = Dataflow("scoring")
    scored = op.input("authorizations", flow, AuthorizationSource(configured, stopping, drain=drain))
    op.output("count", scored, CountSink())
    return flow


def main(arguments: list[str] | None = None) -> int:
    """Score the authorizations topic until SIGTERM or SIGINT (with --drain: to the end of the log)."""
    from streaming.runner import run

    parser = argparse.ArgumentParser(prog="python -m streaming.scoring_flow", description=main.__doc__)
    parser.add_argument("--drain", action="store_true", help="end once everything in the log has been scored")
    chosen = parser.parse_args(arguments)
    configured = settings()
    logging.basicConfig(level=configured.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return run(
        "streaming.scoring_flow", configured,
        lambda stopping: build_flow(configured, stopping, drain=chosen.drain),
        folder=configured.home / "scoring", processes=1, process_id=None, forwarded=[],
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
