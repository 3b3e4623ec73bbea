"""Reading Feast's rows from Redis, against Feast itself."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import redis
import uvloop

from bentos.features.feature_plan import PlanError, PlanRoom, checked, plan_path, resolve
from bentos.features.feature_plan import main as write_plan
from bentos.features.online_features import FeaturePlan, OnlineFeatures, OnlineRows, table_plan
from bentos.wire.redis_connection import RedisConnection, RedisUnavailable, pack
from bentos.wire.replies import Replies
from embedded.redis_server import RedisServer
from fraud.contract.transaction import Transaction
from fraud.features.entities import ENTITIES, FEATURE_SERVICE, PROFILE_TTL, VELOCITY_TTL
from fraud.features.feature_list import PROFILE_INPUTS, VECTOR
from fraud.features.on_demand import packed_rows, request_rows
from fraud.features.profiles import SERVED_PROFILES
from fraud.features.request import request_row, request_values
from fraud.state.layout import STATE_VERSION
from fraud.state.velocity import VERSION, VelocityState
from stores.redis_layout import (
    decode_bytes,
    encode_bytes,
    encode_double,
    encode_int64,
    encode_timestamp,
    entity_key,
    field,
    ts_field,
)
from stores.settings import settings
from tests.bentos.running import store_features, transaction
from tests.either_server import redis_server

__all__ = ["redis_server"]  # a fixture

PROJECT = "reads"


def read(url: str, rows: list[Transaction], project: str = PROJECT) -> OnlineRows:
    async def run() -> OnlineRows:
        connection = RedisConnection(url)
        features = OnlineFeatures(table_plan(project))
        event_us = [row.event_ms * 1000 for row in rows]
        found = features.rows(rows, event_us, await connection.ask(features.commands(rows), 5.0))
        if found.again:
            replies = await connection.ask(features.profile_commands(rows, found), 5.0)
            features.complete(found, replies)
        connection.close()
        return found

    return asyncio.run(run())


CARD_STATE = field("card_velocity", "card_state")


def stamp(store: redis.Redis, customer: str, view: str, microseconds: int) -> None:
    """Make a customer's profile or state one of that time."""
    key = entity_key(PROJECT, "customer_id", customer)
    store.hset(key, ts_field(f"customer_{view}"), encode_timestamp(microseconds))
    if view == "velocity":
        name = field("customer_velocity", "customer_state")
        state = VelocityState.unpack(ENTITIES[0], decode_bytes(store.hget(key, name)))
        state.header[VERSION] = microseconds
        store.hset(key, name, encode_bytes(state.pack()))


@pytest.fixture
def store(redis_server: RedisServer) -> redis.Redis:
    client = redis.Redis(port=redis_server.port)
    client.flushdb()
    return client


def test_a_batch_is_read_row_by_row_in_the_vectors_order(
    redis_server: RedisServer, store: redis.Redis
) -> None:
    known, unknown = transaction(), transaction(customer_id="new", device_id=None)
    store_features(store, PROJECT, known)
    rows = read(redis_server.url, [unknown, known])
    expected = [float(place) for entity in ENTITIES for place in range(len(SERVED_PROFILES[entity.name]))]
    assert rows.profiles[1].tolist() == expected
    width = len(SERVED_PROFILES["customer"])
    assert np.isnan(rows.profiles[0, :width]).all()
    assert rows.status[0]["customer_profile"] == "missing"
    assert rows.status[0]["device_velocity"] == "missing"
    assert rows.status[0]["merchant_velocity"] == "fresh"
    assert rows.inputs.shape == (len(rows.profiles), len(PROFILE_INPUTS))


#   profile at T        T + ttl: still fresh      T + ttl + 1 us: stale
#   |------------------------|-------------------------|----> event time
@pytest.mark.parametrize("view", ["profile", "velocity"])
def test_a_value_is_fresh_up_to_and_including_its_ttl(
    view: str, redis_server: RedisServer, store: redis.Redis
) -> None:
    row = transaction()
    ttl = PROFILE_TTL if view == "profile" else VELOCITY_TTL
    name = f"customer_{view}"
    for beyond, status in ((0, "fresh"), (1, "stale")):
        store_features(store, PROJECT, row)
        age = int(ttl.total_seconds()) * 1_000_000 + beyond
        stamp(store, row.customer_id, view, row.event_ms * 1000 - age)
        rows = read(redis_server.url, [row])
        assert rows.status[0][name] == status
        served = rows.states[0][0] is not None if view == "velocity" else not np.isnan(rows.profiles[0, 0])
        assert served == (status == "fresh")


NOW_S = 1_790_000_000


@pytest.mark.parametrize(
    "microseconds",
    [0, 1, 999_999, 5_000_000, (1 << 28) * 1_000_000 - 1, NOW_S * 1_000_000, NOW_S * 1_000_000 + 1,
     NOW_S * 1_000_000 + 123_000, NOW_S * 1_000_000 + 999_999, (1 << 35) * 1_000_000 + 7],
)  # fmt: skip
def test_timestamps_are_read_as_they_were_stored(
    microseconds: int, redis_server: RedisServer, store: redis.Redis
) -> None:
    row = transaction()
    store_features(store, PROJECT, row)
    for view in ("profile", "velocity"):
        stamp(store, row.customer_id, view, microseconds)
    for _ in range(2):  # anew, and remembered
        found = read(redis_server.url, [row]).timestamps[0]
        assert found["customer_profile"] == found["customer_velocity"] == microseconds


def test_what_cannot_be_read_is_missing_and_fails_no_neighbour(
    redis_server: RedisServer, store: redis.Redis
) -> None:
    broken, sound = transaction(customer_id="broken", card_id="broken"), transaction()
    for row in (broken, sound):
        store_features(store, PROJECT, row)
    customer, card = (entity_key(PROJECT, kind, "broken") for kind in ("customer_id", "card_id"))
    store.hset(customer, ts_field("customer_profile"), b"\x08\xff\xff")
    whole = decode_bytes(store.hget(card, CARD_STATE))
    other_versions = [bytes([STATE_VERSION + step]) + whole[1:] for step in (-1, 1)]
    for stored in (
        b"\x0a", b"", encode_bytes(b""), encode_bytes(whole[:24]), encode_bytes(whole[:-1]),
        encode_bytes(whole)[:-8], encode_double(1.0), *map(encode_bytes, other_versions),
    ):  # fmt: skip
        store.hset(card, CARD_STATE, stored)
        rows = read(redis_server.url, [broken, sound])
        missing = {view for view, state in rows.status[0].items() if state == "missing"}
        assert missing == {"customer_profile", "card_velocity"}
        assert missing.isdisjoint(rows.timestamps[0])
        assert set(rows.status[1].values()) == {"fresh"}
        assert rows.states[1][0] is None and rows.states[1][1] == whole


def test_a_number_of_another_type_is_still_read(redis_server: RedisServer, store: redis.Redis) -> None:
    row = transaction()
    store_features(store, PROJECT, row, side_by_side=False)
    first = SERVED_PROFILES["customer"][0]
    key = entity_key(PROJECT, "customer_id", row.customer_id)
    for value, expected in (
        (encode_int64(-5), -5.0),
        (encode_int64(7), 7.0),
        (b"", None),
        (b"\x98\x01\x00", None),
    ):
        store.hset(key, field("customer_profile", first), value)
        found = read(redis_server.url, [row]).profiles[0, 0]
        assert np.isnan(found) if expected is None else found == expected


def test_numbers_side_by_side_are_used_only_with_their_own_timestamp(
    redis_server: RedisServer, store: redis.Redis
) -> None:
    row, other = transaction(), transaction(customer_id="other")
    for each in (row, other):
        store_features(store, PROJECT, each)
    key = entity_key(PROJECT, "customer_id", row.customer_id)
    first = field("customer_profile", SERVED_PROFILES["customer"][0])
    store.hset(key, first, encode_double(77.0))
    assert read(redis_server.url, [row]).profiles[0, 0] == 0.0  # as the store wrote them, together
    later = row.event_ms * 1000 - 60_000_000
    store.hset(key, ts_field("customer_profile"), encode_timestamp(later))
    found = read(redis_server.url, [other, row])
    assert found.profiles[:, 0].tolist() == [0.0, 77.0]
    assert found.profiles[1, 1:].tolist() == found.profiles[0, 1:].tolist()
    assert found.status[1]["customer_profile"] == "fresh"
    assert found.timestamps[1]["customer_profile"] == later
    store.hset(key, ts_field("customer_profile"), encode_timestamp(0))
    assert read(redis_server.url, [row]).status[0]["customer_profile"] == "stale"


def test_what_has_not_arrived_by_the_deadline_counts_as_timed_out() -> None:
    rows = [transaction(), transaction()]
    features = OnlineFeatures(table_plan(PROJECT))
    width = len(features.commands(rows))
    arrived = Replies.of([b"*3\r\n" + b"$-1\r\n" * 3] * (width - 1))
    found = features.rows(rows, [row.event_ms * 1000 for row in rows], arrived)
    assert set(found.status[0].values()) == {"missing"}
    assert found.status[1]["ip_velocity"] == "timeout"
    assert found.status[1]["customer_velocity"] == "missing"


def test_commands_and_keys_belong_together(redis_server: RedisServer) -> None:
    rows = [transaction(), transaction(ip=None, customer_id="ünïcode")]
    features = OnlineFeatures(table_plan(PROJECT))
    keys = features.keys(rows)
    assert len(keys) == len(features.commands(rows)) == 11
    assert keys[6] == entity_key(PROJECT, "customer_id", "ünïcode")


def test_a_wrong_password_is_refused_with_a_reason(redis_server: RedisServer) -> None:
    async def run() -> None:
        connection = RedisConnection(f"redis://:wrong@127.0.0.1:{redis_server.port}/0")
        await connection.exchange([pack(b"PING")], 1.0)

    with pytest.raises(RedisUnavailable, match="refused"):
        asyncio.run(run())


def test_late_replies_are_dropped_and_the_connection_stays_in_step(redis_server: RedisServer) -> None:
    async def run() -> list[object]:
        connection = RedisConnection(redis_server.url)
        await connection.open()
        slow = [
            pack(b"ECHO", b"first"),
            pack(b"EVAL", b"local n = 0 for i = 1, 3e7 do n = n + i end return n", b"0"),
        ]
        early = await connection.exchange(slow, 0.005)
        after = await connection.exchange([pack(b"ECHO", b"third")], 10.0)
        connection.close()
        return [len(early) < 2, after]

    assert asyncio.run(run()) == [True, [b"third"]]


def test_who_asked_first_goes_on_first_though_both_are_answered_in_one_turn(
    redis_server: RedisServer,
) -> None:
    async def run() -> list[str]:
        connection = RedisConnection(redis_server.url)
        await connection.open()
        order: list[str] = []

        async def go_on(name: str, asked: Awaitable[list[object]]) -> None:
            await asked
            order.append(name)

        slow = [pack(b"EVAL", b"local n = 0 for i = 1, 2e6 do n = n + i end return n", b"0")]
        first = asyncio.create_task(go_on("first", connection.exchange(slow, 5.0)))
        second = asyncio.create_task(go_on("second", connection.exchange([pack(b"PING")], 5.0)))
        for _ in range(3):  # sent, and not answered yet
            await asyncio.sleep(0)
        time.sleep(0.3)  # both answers lie in the socket
        await asyncio.gather(first, second)
        connection.close()
        return order

    assert uvloop.run(run()) == ["first", "second"]


@pytest.mark.parametrize("side_by_side", [True, False])
def test_the_vector_equals_feasts_own_online_read(
    side_by_side: bool,
    home: Path,
    redis_server: RedisServer,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOLLGATE_REDIS_URL", redis_server.url)
    settings.cache_clear()
    from feature_repo.store import apply_definitions, open_store
    from feature_repo.stored_definitions import stored_definitions

    apply_definitions()
    project = settings().feast.project
    scored = [
        transaction(),
        transaction(customer_id="new", card_id="new"),
        transaction(device_id=None, ip=None),
    ]
    store_features(store, project, scored[0], side_by_side=side_by_side)
    rows = read(redis_server.url, scored, project)
    requests = [request_values(row, row.event_ms, row.amount_reference) for row in scored]
    ours = np.concatenate(
        (rows.profiles, packed_rows(rows.words, rows.ends, request_rows(requests), rows.inputs)), axis=1
    )
    feast = open_store()
    assert resolve(stored_definitions(project), project) == table_plan(project)
    # A worker takes up what the process that reads the registry wrote, without a restart.
    room = PlanRoom(settings())
    room.features = OnlineFeatures(dataclasses.replace(table_plan(project), project="another"))
    assert write_plan() == 0
    room.refresh()
    assert (room.features.plan, room.error) == (table_plan(project), None)
    entity_rows = [
        {entity.key: getattr(row, entity.key) or "" for entity in ENTITIES} | request_row(row)
        for row in scored
    ]
    theirs = feast.get_online_features(
        features=feast.get_feature_service(FEATURE_SERVICE), entity_rows=entity_rows
    ).to_dict()
    for column, name in enumerate(VECTOR):
        expected = [np.nan if value is None else value for value in theirs[name]]
        np.testing.assert_array_equal(ours[:, column], expected, err_msg=name)
    for entity in ENTITIES:
        # Feast names a view's time in whole seconds, and 0 where nothing is stored.
        state = feast.get_online_features(
            features=[f"{entity.velocity_view}:{entity.state_feature}"],
            entity_rows=[{entity.key: row[entity.key]} for row in entity_rows],
        ).to_dict(include_event_timestamps=True)
        seconds = [found.get(entity.velocity_view, 0) // 1_000_000 for found in rows.timestamps]
        assert seconds == state[f"{entity.state_feature}__ts"], entity.name


def test_a_changed_registry_is_taken_up_and_one_that_lacks_a_feature_is_not(home: Path) -> None:
    room = PlanRoom(settings())
    plan = table_plan(settings().feast.project)
    assert room.features.plan == plan
    customer = plan.entities[0]
    renamed = dataclasses.replace(
        customer, profile=dataclasses.replace(customer.profile, name="customer_profile_v2", ttl_us=5)
    )
    changed = dataclasses.replace(plan, entities=(renamed, *plan.entities[1:]))
    path = plan_path(home)
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode({"plan": changed, "error": None}))
    room.refresh()
    assert room.features.plan == changed
    path.write_bytes(
        msgspec.json.encode({"plan": None, "error": "customer_profile lacks customer_txn_count_1d"})
    )
    os.utime(path, ns=(1, 1))
    room.refresh()
    assert room.features.plan == changed
    assert room.error == "customer_profile lacks customer_txn_count_1d"


def test_a_plan_is_brought_into_the_vectors_order() -> None:
    plan = table_plan(PROJECT)
    customer = plan.entities[0]

    def with_features(*names: str) -> FeaturePlan:
        entity = dataclasses.replace(customer, profile=dataclasses.replace(customer.profile, features=names))
        return dataclasses.replace(plan, entities=(entity, *plan.entities[1:]))

    names = SERVED_PROFILES["customer"]
    assert checked(with_features("more", *reversed(names))) == plan
    with pytest.raises(PlanError, match=f"lacks {names[0]}"):
        checked(with_features(*names[1:]))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("bentos.service", {"pandas", "pyspark", "feast", "lightgbm", "sklearn", "pyarrow", "evidently"}),
        (
            "bentos.log.decision_files",
            {"pandas", "pyspark", "feast", "lightgbm", "sklearn", "numba", "evidently"},
        ),
    ],
)
def test_what_runs_beside_requests_imports_no_heavy_library(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}\nprint(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
