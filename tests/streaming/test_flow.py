"""The flow as a process, end to end, on a real Redis."""

from __future__ import annotations

import random
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable

import pytest
import redis

from embedded.redis_server import free_port
from fraud.contract.transaction import ContractError, Transaction
from fraud.features.entities import ENTITIES
from fraud.state.velocity import VelocityState
from stores.event_log import partition_of
from stores.keys import open_keys
from stores.lake import read_transactions
from stores.settings import Settings, settings
from streaming.ingest.control import encode_seed
from streaming.ingest.dead_letters import LetterBox, dead_letter, letters_folder, read_letters
from streaming.ingest.dead_letters import main as replay_letters
from streaming.log.load import Event, Load, events
from streaming.log.publish import open_writer
from tests.streaming.conftest import FlowProcess, eventually
from tests.streaming.oracle import differences, plain_loop, stored_states

StartFlow = Callable[..., FlowProcess]


def publish(configured: Settings, load: Load) -> list[Event]:
    published = list(events(load, configured.event_log.partitions))
    with open_writer(configured) as writer:
        for event in published:
            writer.publish_raw(event.partition, event.payload)
    return published


def states_written(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_hset", {"calls": 0})["calls"])


def accepted(published: list[Event]) -> list[Transaction]:
    return [event.transaction for event in published if event.kind in ("new", "late") and event.transaction]


def test_states_in_redis_equal_a_plain_loop_byte_for_byte(
    configured: Settings, flow: StartFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_PARTITIONS", "1")
    settings.cache_clear()
    published = publish(settings(), Load(3_000, customers=150, merchants=40, duplicates=0.02, late=0.02))
    flow("--drain").finish()
    expected = plain_loop(accepted(published))
    stored = stored_states(configured, expected)
    assert {key: state.pack() for key, state in expected.items()} == stored


def test_every_accepted_event_is_in_the_arrival_log_once_and_every_broken_one_a_dead_letter(
    configured: Settings, flow: StartFlow
) -> None:
    published = publish(configured, Load(2_000, customers=150, duplicates=0.05, late=0.02, broken=0.01))
    flow("--drain").finish()
    rows = read_transactions(configured.lake)
    transactions = accepted(published)
    assert sorted(rows.column("transaction_id").to_pylist()) == sorted(t.transaction_id for t in transactions)
    sequences = rows.column("ingest_seq").to_pylist()
    assert len(set(sequences)) == len(sequences)
    broken = [event.payload for event in published if event.kind == "broken"]
    letters = [letter for _, letter in read_letters(letters_folder(configured))]
    assert len(letters) == len(broken)
    assert differences(configured, plain_loop(transactions)) == []


def test_every_event_log_gives_the_states_of_a_plain_loop(log: Settings, flow: StartFlow) -> None:
    published = publish(log, Load(1_000, customers=100, duplicates=0.02, late=0.02, broken=0.01))
    flow("--drain").finish()
    transactions = accepted(published)
    assert differences(log, plain_loop(transactions)) == []
    assert read_transactions(log.lake).num_rows == len(transactions)


def test_killed_at_any_moment_and_restarted_with_more_processes_nothing_is_lost_or_doubled(
    configured: Settings, flow: StartFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few events a read, so that there is a backlog, whose states are held for several reads.
    monkeypatch.setenv("TOLLGATE_STREAM_BATCH", "200")
    load = Load(12_000, customers=300, merchants=500, duplicates=0.02, late=0.02, broken=0.002)
    published = list(events(load, configured.event_log.partitions))
    moments = random.Random(3)
    with redis.Redis.from_url(configured.redis.url) as client, open_writer(configured) as writer:
        for attempt, processes in enumerate((1, 2, 1)):
            running = flow("--processes", str(processes))
            before = states_written(client)
            for event in published[attempt * 4_000 : (attempt + 1) * 4_000]:
                writer.publish_raw(event.partition, event.payload)
            writer.flush()
            eventually(lambda before=before: states_written(client) > before)
            time.sleep(moments.uniform(0.0, 0.8))
            running.kill()
        flow("--drain").finish()
    transactions = accepted(published)
    assert differences(configured, plain_loop(transactions)) == []
    rows = read_transactions(configured.lake)
    assert sorted(rows.column("transaction_id").to_pylist()) == sorted(t.transaction_id for t in transactions)
    letters = [letter for _, letter in read_letters(letters_folder(configured))]
    assert len(letters) == sum(event.kind == "broken" for event in published)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_sigterm_finishes_the_batch_and_a_restart_continues_where_it_ended(
    configured: Settings, flow: StartFlow, processes: str
) -> None:
    first = publish(configured, Load(500, seed=1, customers=50))
    running = flow("--processes", processes)
    with redis.Redis.from_url(configured.redis.url) as client:
        eventually(lambda: client.dbsize() > 10)
        output = running.stop()
    assert output.count("the flow has ended") == int(processes)
    assert output.count("is read from its start") == configured.event_log.partitions
    assert read_transactions(configured.lake).num_rows == 500
    second = publish(configured, Load(500, seed=2, customers=50))
    flow("--drain").finish()
    assert differences(configured, plain_loop(accepted(first) + accepted(second))) == []
    assert read_transactions(configured.lake).num_rows == 1_000


def test_a_seed_joins_live_events_and_sending_it_again_changes_nothing(
    configured: Settings, flow: StartFlow
) -> None:
    history = [event.transaction for event in events(Load(400, seed=5, customers=20), 1) if event.transaction]
    live = Load(400, seed=6, customers=20, start=history[-1].event_time)
    seeds = plain_loop(history)
    seal = open_keys(configured).seal("control")
    with open_writer(configured) as writer:
        for _ in range(2):
            for (place, value), state in seeds.items():
                partition = partition_of(value, configured.event_log.partitions)
                writer.publish_raw(partition, encode_seed(seal, ENTITIES[place].name, value, state.pack()))
    published = publish(configured, live)
    flow("--drain").finish()
    expected = plain_loop(history + accepted(published))
    stored = stored_states(configured, expected)
    assert set(stored) == set(expected)
    for key, state in expected.items():
        kept = VelocityState.unpack(ENTITIES[key[0]], stored[key])
        assert sorted(kept.events[::2]) == sorted(state.events[::2])
    assert not list(read_letters(letters_folder(configured)))


def test_an_operator_sees_what_the_flow_does_and_replays_a_letter_after_a_fix(
    configured: Settings, flow: StartFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("TOLLGATE_STREAM_METRICS_PORT", str(port))
    settings.cache_clear()
    configured = settings()
    published = publish(configured, Load(600, customers=50, duplicates=0.05, late=0.05, broken=0.02))
    # A letter from before a fix: what was refused then is valid now.
    mended = next(iter(events(Load(1, seed=77, customers=1), configured.event_log.partitions)))
    assert mended.transaction is not None
    box = LetterBox(letters_folder(configured) / f"{mended.partition:03d}")
    refused = ContractError("currency", "should be an ISO 4217 code that is configured")
    box.add([dead_letter(mended.partition, "1-1", refused, mended.payload)])
    box.flush()
    running = flow()
    kinds = Counter(event.kind for event in published)
    eventually(lambda: metric(port, "tollgate_stream_events_total") == kinds["new"] + kinds["late"])
    assert metric(port, "tollgate_stream_duplicates_total") == kinds["duplicate"]
    assert metric(port, "tollgate_stream_dead_letters_total") == kinds["broken"]
    assert metric(port, "tollgate_stream_late_events_total") > 0
    eventually(lambda: metric(port, "tollgate_stream_entities") > 100)
    eventually(lambda: metric(port, "tollgate_stream_state_bytes") > 1_000)
    assert metric(port, "tollgate_stream_states_written_total") > 100
    assert metric(port, "tollgate_stream_freshness_seconds_count") > 0
    eventually(lambda: metric(port, "tollgate_stream_lag") == 0)
    assert replay_letters(["replay"]) == 0
    eventually(lambda: metric(port, "tollgate_stream_events_total") == kinds["new"] + kinds["late"] + 1)
    # Partitions are read each at its own pace: the mended one's event says nothing of the others' letters.
    eventually(lambda: metric(port, "tollgate_stream_dead_letters_total") == 2 * kinds["broken"])
    running.stop()
    assert differences(configured, plain_loop([*accepted(published), mended.transaction])) == []
    # The broken ones came back as new letters at new positions; the mended one did not.
    letters = [letter for _, letter in read_letters(letters_folder(configured))]
    assert len(letters) == kinds["broken"]


def metric(port: int, name: str) -> float:
    """The sum of a metric over its labels, as Prometheus would read it now; -1 before it is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except urllib.error.URLError:
        return -1.0
    found = [line.rpartition(" ") for line in lines if line.split("{")[0].split(" ")[0] == name]
    return sum([float(value) for _, _, value in found]) if found else -1.0
