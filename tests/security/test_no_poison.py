"""No file of any kind stops those behind it: what waits on disk, counters, journal and decision files."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from bentos.base.metrics import Metrics
from bentos.base.worker_metrics import WorkerMetrics, service_folder
from bentos.effects.backlog import Backlog, Effect
from bentos.effects.outbox import Outbox
from bentos.log.decision_files import convert_all
from bentos.log.decision_log import DecisionLog
from bentos.once.claims import answer_key, answer_value
from bentos.tools.audit import audit
from embedded.redis_server import RedisServer
from monitoring.decisions import read_decisions, read_labels
from stores.aside import asides
from stores.decisions import decisions_folder, journal_folder
from stores.keys import open_keys
from stores.lake import write_labels
from stores.settings import load_settings
from stores.spool import frame, read_frames
from tests.bentos.log.test_decision_log import row

KEYS = open_keys(load_settings())
WAITING = KEYS.seal("outbox")
ANSWERS = KEYS.seal("answers")
STREAM = b"tollgate:poison:0"

S7 = pytest.mark.finding(
    "S7", "high", "who writes the outbox set any key in Redis, or held up every answer behind"
)
S8 = pytest.mark.finding(
    "S8", "medium", "one snapshot of counters that was none ended /metrics, and the next start"
)
S9 = pytest.mark.finding(
    "S9", "medium", "one segment of the journal ended the converter, again at every start"
)
S10 = pytest.mark.finding(
    "S10", "medium", "one damaged or foreign decision file ended drift, parity and labels"
)


def effect(name: str) -> Effect:
    key = answer_key("p", name)
    return Effect(key, answer_value(ANSWERS, key, b"d" * 16, b"{}"), 0, name.encode())


@S7
@pytest.mark.parametrize("where", ["first", "between", "alone"])
def test_what_somebody_put_into_the_outbox_goes_aside_and_the_rest_goes_out(
    tmp_path: Path, redis_server: RedisServer, where: str
) -> None:
    client = redis.Redis(port=redis_server.port, db=7)
    client.flushdb()
    client.hset("a row of features", "f", b"1")
    planted = msgspec.msgpack.encode((b"a row of features", b"Aanything", 0, b"an event"))
    strange = [planted, WAITING.sign(b"junk") + b"junk", bytes(20) + planted, b"\x93" * 100, b"x"]
    backlog = Backlog(tmp_path / "outbox" / "redis", WAITING)
    if where != "alone":
        backlog.keep([effect("a"), effect("b")])
    backlog.close()
    folder = tmp_path / "outbox" / "redis"
    good = [record for path in folder.glob("*.open") for record in read_frames(path)]
    records = [*strange, *good] if where == "first" else [*good[:1], *strange, *good[1:]]
    for path in folder.glob("*.open"):
        path.unlink()
    (folder / "20260101T000000-1-abcdef.open").write_bytes(b"".join(map(frame, records)))
    told: list[int] = []

    async def run() -> None:
        outbox = Outbox(
            f"redis://127.0.0.1:{redis_server.port}/7", tmp_path, [STREAM], seal=WAITING,
            unverified=lambda what, number: told.append(number),
        )  # fmt: skip
        await outbox.start()
        await outbox.tick()
        while outbox.spooled:
            await asyncio.sleep(0.01)
        assert outbox.send([effect("c")])
        await outbox.close()

    asyncio.run(run())
    events = [fields[b"v"] for _, fields in client.xrange(STREAM)]
    assert events == ([b"c"] if where == "alone" else [b"a", b"b", b"c"])
    assert client.type("a row of features") == b"hash"
    assert sum(told) == len(asides(folder)) == len(strange)
    client.flushdb()


@S7
def test_a_damaged_frame_of_the_outbox_holds_up_none_behind_it(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path, WAITING)
    backlog.keep([effect(name) for name in "abc"])
    (path,) = tmp_path.glob("*.open")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert [one.event for one in backlog.part()] == [b"a", b"c"]
    backlog.close()


@S7
def test_zeros_at_the_end_of_a_file_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "torn"
    path.write_bytes(frame(b"one") + bytes(4096))
    assert list(read_frames(path)) == [b"one"]


@S8
@pytest.mark.parametrize(
    "planted",
    [
        b"[]", b"{", b"[" * 100_000, b'{"counters": {"requests_total": 7}, "gauges": {}, "histograms": {}}',
        b'{"counters": {}, "gauges": {}, "histograms": {"request_seconds": [[["a"], [1], 2.0]]}}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_a_snapshot_of_counters_that_is_none_costs_nobody_else_the_page(
    tmp_path: Path, planted: bytes
) -> None:
    folder = service_folder(tmp_path)
    for name in ("1-2.json", "gone.json", f"{os.getppid()}.json"):
        (folder / name).write_bytes(planted)
    own = Metrics()
    own.count("repeated_total", "answered")
    workers = WorkerMetrics(own, tmp_path)
    assert b'tollgate_repeated_total{outcome="answered"} 1.0' in workers.text()


@S9
@pytest.mark.parametrize(
    "record",
    [
        msgspec.msgpack.encode([]), msgspec.msgpack.encode([None] * 40), msgspec.msgpack.encode({"a": 1}),
        b"\x91" * 5_000 + b"\x01", msgspec.msgpack.encode(["text"] * 39), b"\xc1",
        msgspec.msgpack.encode([2**62] * 39),
    ],
)  # fmt: skip
def test_a_segment_of_anything_goes_aside_and_those_behind_it_are_converted(
    tmp_path: Path, record: bytes
) -> None:
    journal = journal_folder(tmp_path)
    journal.mkdir(parents=True)
    (journal / "20200101T000000-1-aaaaaa-00000000.ready").write_bytes(frame(bytes(32) + record))
    log = DecisionLog(tmp_path, KEYS.seal("log"))
    log.append([row(f"t{place}") for place in range(3)])
    log.close()
    assert convert_all(tmp_path) == 3
    assert [path.suffix for path in journal.glob("2020*")] == [".foreign"]
    assert audit(tmp_path, KEYS.seal("log")).problems  # which names it


def _file(home: Path) -> Path:
    log = DecisionLog(home, KEYS.seal("log"))
    log.append([row(f"t{place}") for place in range(5)])
    log.close()
    convert_all(home)
    (path,) = decisions_folder(home).rglob("*.parquet")
    return path


def _no_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1 nothing")


def _of_somebody_else(path: Path) -> None:
    pq.write_table(pa.table({"transaction_id": ["t9"], "event_timestamp": ["yesterday"]}), path)


def _without_times(path: Path) -> None:
    pq.write_table(pa.table({"transaction_id": ["t9"]}), path)


def _damaged_pages(path: Path) -> None:
    shutil.copy(next(path.parent.glob("[1-9]*.parquet")), path)
    held = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(2)
    start = column.dictionary_page_offset or column.data_page_offset
    held[start : start + 12] = b"\xff" * 12
    path.write_bytes(bytes(held))


@S10
@pytest.mark.parametrize("plant", [_no_parquet, _of_somebody_else, _without_times, _damaged_pages])
def test_a_decision_file_that_is_none_is_passed_over_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, plant: object
) -> None:
    good = _file(tmp_path)
    planted = good.with_name("00000000T000000-1-aaaaaa-00000000.parquet")  # the first that readers meet
    plant(planted)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING, "tollgate.lake"):
        found = read_decisions(decisions_folder(tmp_path))
    assert sorted(found["transaction_id"].to_pylist()) == [f"t{place}" for place in range(5)]
    assert planted.name in caplog.text
    problems = audit(tmp_path, KEYS.seal("log")).problems
    assert any(planted.name in problem for problem in problems), problems


@S10
def test_a_file_of_labels_that_is_none_is_passed_over(tmp_path: Path) -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    table = pa.table(
        {
            "transaction_id": ["a"], "event_timestamp": [moment], "created_timestamp": [moment],
            "is_fraud": [True], "source": ["issuer"],
        }
    )  # fmt: skip
    write_labels(table, tmp_path, name="labels-good")
    (path,) = (tmp_path / "labels").rglob("*.parquet")
    _no_parquet(path.with_name("labels-aaa.parquet"))
    _of_somebody_else(path.with_name("labels-aab.parquet"))
    assert read_labels(tmp_path / "labels", known_by=moment).to_pylist() == [
        {"transaction_id": "a", "is_fraud": True}
    ]
