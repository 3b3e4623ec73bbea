"""What has to be out of an attacker's reach: the ports of a flow's cluster, and the heads of the log's chains."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bentos.log.decision_files import convert_all
from bentos.log.decision_log import DecisionLog
from bentos.log.head_places import places_of
from bentos.log.heads import Heads
from bentos.tools.audit import main
from embedded.redis_server import RedisServer
from stores.decisions import decisions_folder
from stores.keys import open_keys
from stores.settings import REPOSITORY, Settings, settings
from tests.bentos.log.test_decision_log import row
from tests.streaming.broker import start_broker

H8 = pytest.mark.finding(
    "H8",
    "high",
    "whoever writes the log's files cut its end off: the heads lay in a folder that he may write, too",
)


@pytest.mark.finding(
    "H7", "high", "the ports of several processes were open to every user, with a warning only"
)
def test_several_processes_without_a_fence_are_refused(home: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "streaming.flow", "--processes", "2", "--drain"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "TOLLGATE_STREAM_PORTS_FENCED" in ended.stderr


@pytest.fixture(params=["redis", "kafka"])
def elsewhere(
    request: pytest.FixtureRequest, home: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Settings, str]]:
    """Settings that put heads out to a Redis or a broker, and that place for the audit."""
    if request.param == "redis":
        place = f"redis://127.0.0.1:{redis_server.port}/9"
        redis.Redis.from_url(place).flushdb()
        monkeypatch.setenv("TOLLGATE_SERVE_HEADS_REDIS", place)
        settings.cache_clear()
        yield settings(), place
        return
    broker = start_broker()
    topic = f"heads-{time.time_ns()}"
    broker.create_topic(topic, 2)
    monkeypatch.setenv("TOLLGATE_KAFKA_BOOTSTRAP", broker.bootstrap)
    monkeypatch.setenv("TOLLGATE_SERVE_HEADS_TOPIC", topic)
    settings.cache_clear()
    yield settings(), f"kafka:{topic}"
    broker.stop()


@H8
def test_a_log_whose_end_is_cut_off_differs_from_the_heads_that_are_kept_elsewhere(
    elsewhere: tuple[Settings, str], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen, place = elsewhere
    keys = open_keys(chosen)
    for _ in range(2):
        log = DecisionLog(chosen.home, keys.seal("log"), Heads(places_of(chosen), keys.seal("heads")))
        log.append([row(f"t{number}") for number in range(5)])
        log.close()
    convert_all(chosen.home)
    assert main(["--heads", place]) == 0
    assert "all 2 heads are in it" in capsys.readouterr().out
    next(decisions_folder(chosen.home).rglob("*.parquet")).unlink()
    assert main([]) == 0, "the chains alone cannot tell"
    assert main(["--heads", place]) == 1
    assert "cut off, replaced or lost" in capsys.readouterr().err


@H8
def test_a_head_that_somebody_made_up_is_named(
    redis_server: RedisServer, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"redis://127.0.0.1:{redis_server.port}/9"
    client = redis.Redis.from_url(place)
    client.flushdb()
    for line in (b"{", b'{"series":"x","entries":9,"hash":"00","at":"now","signature":"00"}', b"\xff"):
        client.xadd("tollgate:heads", {"v": line})
    client.xadd("tollgate:heads", {"other": b"field"})
    assert main(["--heads", place]) == 1
    shown = capsys.readouterr().err
    assert shown.count("is no head") == 3
    assert shown.count("no key of the keyring signed") == 1


@H8
def test_a_place_that_is_away_is_late_and_the_others_get_their_heads(home: Path, tmp_path: Path) -> None:
    class Away:
        def put(self, series: str, line: bytes) -> None:
            raise OSError(0, "away")

    class There:
        def __init__(self) -> None:
            self.lines: list[bytes] = []

        def put(self, series: str, line: bytes) -> None:
            self.lines.append(line)

    there = There()
    heads = Heads([Away(), there], open_keys(settings()).seal("heads"))
    heads.put_out("s", 5, bytes(32), last=True)
    assert len(there.lines) == 1
    assert heads.late > 0
