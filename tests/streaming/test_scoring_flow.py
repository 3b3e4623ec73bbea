"""The scoring flow against a service that answers, hangs up and is too busy."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stores.settings import Settings, settings
from streaming.ingest.dead_letters import letters_folder, read_letters
from streaming.log.load import Load, events
from streaming.log.publish import open_writer
from streaming.log.source import reader_opener
from streaming.scoring_flow import ScoringPartition

POISON = pytest.mark.finding(
    "S6", "medium", "one record among the predictions, or one refused request, ended the scoring flow"
)


class Service(ThreadingHTTPServer):
    """Answers bulk requests as the scoring service does; `failures` are statuses to answer first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures: list[int] = []
        self.refused = ""
        self.garbled = 0
        self.asked = 0


class Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        items = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = self.server.failures.pop(0) if self.server.failures else 200
        self.server.asked += 1
        answers = [{"transaction_id": item["transaction_id"], "decision": "APPROVE"} for item in items]
        if self.server.refused in [item["transaction_id"] for item in items]:
            status = 422
        body = json.dumps(answers).encode()
        if self.server.garbled:
            self.server.garbled -= 1
            body = b"<html>" if self.server.garbled else b'[{"error": "text"}' + b"]"
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("TOLLGATE_SCORE_URL", f"http://127.0.0.1:{server.server_port}")
    settings.cache_clear()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def publish(configured: Settings, load: Load) -> set[str]:
    """Put `load` into partition 0 of the authorizations; return the ids of what is valid in it."""
    names = set()
    with open_writer(configured, configured.event_log.authorizations_topic) as writer:
        for event in events(load, 1):
            writer.publish_raw(0, event.payload)
            if event.transaction is not None:
                names.add(event.transaction.transaction_id)
    return names


Start = Callable[..., ScoringPartition]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts partition 0, from a snapshot if one is given."""
    started: list[ScoringPartition] = []

    def build(configured: Settings, snapshot: tuple[Any, ...] | None = None) -> ScoringPartition:
        started.append(ScoringPartition(configured, 0, snapshot, threading.Event(), drain=True))
        return started[-1]

    yield build
    for partition in started:
        partition.close()


def run(partition: ScoringPartition, batches: int | None = None) -> None:
    """Run `partition` to the end of its log, or until it has published `batches` batches."""
    deadline = time.monotonic() + 30
    while batches != 0:
        assert time.monotonic() < deadline
        try:
            published = partition.next_batch()
        except StopIteration:
            return
        if batches is not None and published:
            batches -= 1


def predictions(configured: Settings) -> list[str]:
    reader = reader_opener(configured.changed(topic=configured.event_log.predictions_topic))(0, None)
    end = reader.end()
    found: list[str] = []
    while not reader.reached(end):
        found.extend(json.loads(payload)["transaction_id"] for payload in reader.read().payloads)
    reader.close()
    return found


def test_every_valid_authorization_is_answered_once_across_a_crash(
    log: Settings, service: Service, start: Start
) -> None:
    log = settings()
    load = Load(300, duplicates=0.1, broken=0.02)
    names = publish(log, load)
    first = start(log)
    run(first, batches=3)
    snapshot = first.snapshot()
    run(first, batches=2)  # published, but the crash comes before a snapshot
    resumed = start(log, snapshot)
    run(resumed)
    assert sorted(predictions(log)) == sorted(names)
    letters = list(read_letters(letters_folder(log, log.event_log.authorizations_topic)))
    assert len(letters) == sum(
        event.kind == "broken" for event in events(Load(300, duplicates=0.1, broken=0.02), 1)
    )


def test_a_busy_service_is_asked_again_and_a_snapshot_meanwhile_loses_nothing(
    configured: Settings, service: Service, start: Start
) -> None:
    names = publish(settings(), Load(100))
    service.failures = [503, 429, 500]
    waiting = start(settings())
    assert waiting.next_batch() == []
    snapshot = waiting.snapshot()  # the batch under way is not in it
    run(waiting)
    assert service.asked >= 4
    assert sorted(predictions(settings())) == sorted(names)
    run(start(settings(), snapshot))
    assert sorted(predictions(settings())) == sorted(names)


def test_a_service_that_refuses_the_caller_ends_the_flow_with_its_status(
    configured: Settings, service: Service, start: Start
) -> None:
    publish(settings(), Load(5))
    service.failures = [401]
    with pytest.raises(RuntimeError, match="401"):
        run(start(settings()))


@POISON
def test_one_transaction_that_the_service_refuses_a_request_for_holds_up_no_other(
    configured: Settings, service: Service, start: Start
) -> None:
    names = publish(settings(), Load(40))
    service.refused = sorted(names)[7]
    run(start(settings()))
    assert sorted(predictions(settings())) == sorted(names)
    assert [answer["transaction_id"] for answer in published(settings()) if "error" in answer] == [
        service.refused
    ]


@POISON
def test_what_is_no_list_of_answers_is_asked_for_again(
    configured: Settings, service: Service, start: Start
) -> None:
    names = publish(settings(), Load(20))
    service.garbled = 3  # a proxy's page, twice, and a list of too few
    run(start(settings()))
    assert sorted(predictions(settings())) == sorted(names)


@POISON
def test_records_among_the_answers_that_are_none_are_passed_over(
    log: Settings, service: Service, start: Start
) -> None:
    log = settings()
    names = publish(log, Load(40))
    first = start(log)
    snapshot = first.snapshot()
    with open_writer(log, log.event_log.predictions_topic) as writer:
        for planted in (b"{", b"[]", b"7", b'{"transaction_id": 3}', b"\xff", b"[" * 100_000):
            writer.publish_raw(0, planted)
            writer.publish_raw(1, planted)
    run(start(log, snapshot))
    found = [answer for answer in published(log) if isinstance(answer, dict) and "decision" in answer]
    assert sorted(answer["transaction_id"] for answer in found) == sorted(names)


def published(configured: Settings) -> list[Any]:
    """Everything in the predictions of both partitions that is JSON."""
    found = []
    for partition in range(configured.event_log.partitions):
        reader = reader_opener(configured.changed(topic=configured.event_log.predictions_topic))(
            partition, None
        )
        end = reader.end()
        while not reader.reached(end):
            for payload in reader.read().payloads:
                with suppress(ValueError, RecursionError):
                    found.append(json.loads(payload))
        reader.close()
    return found
