"""A view added to a platform that runs: it warms up, its history is rebuilt and sent, nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import redis
from msgspec.structs import replace
from pyspark.sql import SparkSession

from embedded.redis_server import RedisServer
from feature_repo.velocity_log import build_velocity_log
from fraud.declared.layout import DISTINCT, DISTINCT_ERROR
from fraud.declared.loops import read_states
from fraud.state.windows import joined
from stores.declared import declared
from stores.settings import Settings, settings
from streaming.states.seed import seed_views
from streaming.states.tracks import KnownFrom
from tests.declared.own import OWN, write_plan
from tests.feature_repo.quick_spark import quick_spark
from tests.streaming.broker import free_ports
from tests.streaming.conftest import FlowProcess, eventually
from tests.streaming.test_declared_views import plain_loop, publish, stored, with_attributes

VIEW = "email_velocity"


@pytest.fixture
def chosen(home: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    url = f"redis://127.0.0.1:{redis_server.port}/12"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    monkeypatch.setenv("TOLLGATE_REDIS_URL", url)
    monkeypatch.setenv("TOLLGATE_PARTITIONS", "1")
    monkeypatch.setenv("TOLLGATE_STREAM_PORT", str(free_ports(4)))
    settings.cache_clear()
    yield settings()
    settings.cache_clear()


@pytest.fixture
def start() -> Iterator[Callable[..., FlowProcess]]:
    running: list[FlowProcess] = []

    def begin(*arguments: str) -> FlowProcess:
        running.append(FlowProcess(*arguments))
        return running[-1]

    yield begin
    for each in running:
        if each.process.poll() is None:
            each.kill()


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    session = quick_spark(tmp_path_factory.mktemp("spark"))
    yield session
    session.stop()


def read(chosen: Settings, at_ms: int) -> dict[str, list[float]]:
    """The view's aggregates by key, as states in Redis give them at a time."""
    own = declared(chosen)
    observer = next(each for each in own.observers if each.layout.view == VIEW)
    layout = observer.layout
    names = [(VIEW, f"example.{end}") for end in ("org", "com", "net")]
    found = stored(chosen, own, names)
    states = [found.get(name) for name in names]
    matrix = np.empty((len(states), len(layout.names)))
    words, ends = joined(states)
    read_states(
        words, ends, layout.shape, layout.operations, np.full(len(states), at_ms), layout.ttl_ms,
        np.zeros((len(states), len(layout.tables)), dtype=np.int64),
        np.zeros((len(states), len(layout.values))), matrix,
    )  # fmt: skip
    return {key: row.tolist() for (_, key), row in zip(names, matrix, strict=True)}


def test_history_of_a_new_view_is_rebuilt_and_sent_to_the_running_stream(
    chosen: Settings, start: Callable[..., FlowProcess], spark: SparkSession
) -> None:
    transactions = with_attributes(700)
    write_plan(chosen, replace(OWN, streams=OWN.streams[:1], services=(), order=()))
    publish(chosen, transactions[:400])
    start("--drain").finish()

    write_plan(chosen)
    own = declared(chosen)
    layout = own.layouts[1]
    known = KnownFrom(layout, chosen.home / "stream")
    start()
    note = chosen.home / "stream" / "views" / f"{VIEW}.{layout.digest:012x}.json"
    eventually(note.exists)
    first = min(one.event_time for one in transactions)
    last = max(one.event_time for one in transactions) + timedelta(days=1)
    written = build_velocity_log(first, last, spark, views=[VIEW])
    assert set(written) == {VIEW} and written[VIEW] > 100

    publish(chosen, transactions[400:600])
    at_ms = max(one.event_ms for one in transactions) + 1
    expected = plain_loop(own, transactions[:600])
    cards = {name: data for name, data in expected.items() if name[0] == "card_risk"}
    eventually(lambda: stored(chosen, own, list(cards)) == cards)
    assert all(np.isnan(row).all() for row in read(chosen, at_ms).values())  # warming: never a small number

    seeded = seed_views(chosen, [VIEW], known.taken_up, wait_seconds=60)
    assert seeded == 3
    publish(chosen, transactions[600:])
    expected = plain_loop(own, transactions)
    cards = {name: data for name, data in expected.items() if name[0] == "card_risk"}
    eventually(lambda: stored(chosen, own, list(cards)) == cards)  # nothing else was touched

    def truth(key: str) -> list[float]:
        seen = [one for one in transactions if (one.attributes or {}).get("email_domain") == key]
        amounts = [one.amount_reference for one in seen]
        return [len(seen), sum(amounts) / len(amounts), len({one.card_id for one in seen})]

    def whole() -> bool:
        found = read(chosen, at_ms)
        return all(row[0] == truth(key)[0] for key, row in found.items())

    eventually(whole)
    for key, row in read(chosen, at_ms).items():
        count, mean, cards_used = truth(key)
        assert row[0] == pytest.approx(count, rel=0.02)
        assert row[1] == pytest.approx(mean, rel=0.04)
        assert row[2] == pytest.approx(cards_used, rel=0 if cards_used <= DISTINCT else DISTINCT_ERROR)
    assert known.taken_up < datetime.now(known.taken_up.tzinfo)
    assert KnownFrom(layout, chosen.home / "stream")() == 0
