"""The online store: newest wins under any writer, read back equal to stock Feast."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import redis
from feast import Entity, FeatureView, Field, RepoConfig, ValueType
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Bytes, Float64, String
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from embedded.redis_server import RedisServer
from feature_repo.online_store import NewestWinsRedisOnlineStore, NewestWinsRedisOnlineStoreConfig
from feature_repo.sources import BY_CUT, lake_source
from fraud.features.profiles import SERVED_PROFILES
from stores.redis_layout import row_field
from tests.bentos.redis_cluster_processes import cluster, url_of
from tests.bentos.redis_process import Server
from tests.either_server import redis_server

__all__ = ["cluster", "redis_server"]  # fixtures

TIME = datetime(2026, 3, 1, 6, tzinfo=UTC)


@pytest.fixture
def view(home: Any) -> FeatureView:
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
    return FeatureView(
        name="customer_profile",
        entities=[customer],
        ttl=timedelta(days=2),
        schema=[
            Field(name="customer_id", dtype=String),
            Field(name="mean", dtype=Float64),
            Field(name="state", dtype=Bytes),
        ],
        source=lake_source("customers", "profiles/customer", BY_CUT, "for the test"),
    )


@pytest.fixture
def stores(redis_server: RedisServer) -> Iterator[SimpleNamespace]:
    """Ours and stock Feast's, each with its own database of the same server."""
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    base = f"redis://127.0.0.1:{redis_server.port}"
    yield SimpleNamespace(
        ours=NewestWinsRedisOnlineStore(),
        stock=RedisOnlineStore(),
        config=repo_config(NewestWinsRedisOnlineStoreConfig(redis_url=f"{base}/1")),
        stock_config=repo_config(
            RedisOnlineStoreConfig(connection_string=f"127.0.0.1:{redis_server.port},db=2")
        ),
        client=redis.Redis(port=redis_server.port, db=1),
        stock_client=redis.Redis(port=redis_server.port, db=2),
    )


def repo_config(online: Any) -> RepoConfig:
    return RepoConfig(
        project="tollgate",
        provider="local",
        registry="unused.db",
        online_store=online,
        entity_key_serialization_version=3,
    )


def key(value: str) -> EntityKey:
    return EntityKey(join_keys=["customer_id"], entity_values=[Value(string_val=value)])


def row(value: str, mean: float | None, state: bytes, at: datetime) -> tuple[Any, ...]:
    values = {"mean": Value() if mean is None else Value(double_val=mean), "state": Value(bytes_val=state)}
    return key(value), values, at, at


def contents(client: redis.Redis) -> dict[bytes, dict[bytes, bytes]]:
    return {name: client.hgetall(name) for name in client.scan_iter()}


def test_what_is_written_is_what_stock_feast_would_write_byte_for_byte(
    stores: SimpleNamespace, view: FeatureView
) -> None:
    random = np.random.default_rng(3)
    rows = [
        row(
            f"c{i}",
            None if i % 7 == 0 else float(random.normal()),
            random.bytes(int(random.integers(0, 400))),
            TIME + timedelta(microseconds=i),
        )
        for i in range(2_300)
    ]
    done: list[int] = []
    stores.ours.online_write_batch(stores.config, view, rows, done.append)
    stores.stock.online_write_batch(stores.stock_config, view, rows, None)
    assert sum(done) == len(rows)
    assert contents(stores.client) == contents(stores.stock_client)


def test_the_asynchronous_write_is_the_same(stores: SimpleNamespace, view: FeatureView) -> None:
    rows = [row(f"c{i}", 1.5, b"x" * i, TIME) for i in range(120)]
    asyncio.run(stores.ours.online_write_batch_async(stores.config, view, rows, None))
    stores.stock.online_write_batch(stores.stock_config, view, rows, None)
    assert contents(stores.client) == contents(stores.stock_client)


def test_a_profiles_numbers_are_written_side_by_side_as_well(stores: SimpleNamespace, home: Any) -> None:
    names = SERVED_PROFILES["customer"]
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name="customer_profile",
        entities=[customer],
        schema=[
            Field(name="customer_id", dtype=String),
            *(Field(name=name, dtype=Float64) for name in names),
        ],
        source=lake_source("customers", "profiles/customer", BY_CUT, "for the test"),
    )

    def profile(value: str, first: Value, at: datetime) -> tuple[Any, ...]:
        values = {name: Value(double_val=float(place)) for place, name in enumerate(names)}
        return key(value), values | {names[0]: first, names[1]: Value()}, at, at

    rows = [
        profile("c1", Value(double_val=7.5), TIME),
        profile("c2", Value(int64_val=7), TIME),
        profile("c1", Value(double_val=1.5), TIME - timedelta(seconds=1)),
    ]
    stores.ours.online_write_batch(stores.config, view, rows, None)
    stores.stock.online_write_batch(stores.stock_config, view, rows, None)
    together, found = row_field("customer_profile", names), contents(stores.client)
    numbers = [stored.pop(together) for _, stored in sorted(found.items())]
    assert found == contents(stores.stock_client)
    moment = int(TIME.timestamp() * 1_000_000).to_bytes(8, "little")
    assert numbers[0][:8] == moment
    expected = [7.5, np.nan, *range(2, len(names))]
    np.testing.assert_array_equal(np.frombuffer(numbers[0][8:], "<f8"), expected)
    assert numbers[1] == b""  # a number that is no double: serving reads it by itself


async def write_async(config: RepoConfig, view: FeatureView, rows: list[Any]) -> None:
    store = NewestWinsRedisOnlineStore()
    await store.online_write_batch_async(config, view, rows, None)
    assert store._client_async is not None
    await store._client_async.aclose()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cluster_is_written_and_read_by_the_same_store(
    cluster: list[Server], view: FeatureView, asynchronous: bool
) -> None:
    config = repo_config(NewestWinsRedisOnlineStoreConfig(redis_url=url_of(cluster)))
    store = NewestWinsRedisOnlineStore()
    for mean, at in ((1.0, TIME), (2.0, TIME + timedelta(hours=1)), (3.0, TIME)):
        rows = [row(f"{asynchronous}-{i}", mean, b"x", at) for i in range(60)]
        if asynchronous:
            asyncio.run(write_async(config, view, rows))
        else:
            store.online_write_batch(config, view, rows, None)
    read = store.online_read(config, view, [key(f"{asynchronous}-{i}") for i in range(60)], ["mean"])
    assert [values["mean"].double_val for _, values in read if values] == [2.0] * 60


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    writes=st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 5), st.integers(0, 1000)),
        min_size=1,
        max_size=30,
    ),
    batch=st.integers(1, 7),
)
def test_the_newest_version_is_left_whatever_the_order_and_the_batches(
    stores: SimpleNamespace, view: FeatureView, writes: list[tuple[str, int, int]], batch: int
) -> None:
    stores.client.flushdb()
    rows = [
        row(name, float(value), b"", TIME + timedelta(microseconds=version))
        for name, version, value in writes
    ]
    for at in range(0, len(rows), batch):
        stores.ours.online_write_batch(stores.config, view, rows[at : at + batch], None)
    expected: dict[str, tuple[int, float]] = {}
    for name, version, value in writes:  # the last of equal versions stands
        if version >= expected.get(name, (-1, 0.0))[0]:
            expected[name] = (version, float(value))
    names = sorted(expected)
    found = stores.ours.online_read(stores.config, view, [key(name) for name in names], ["mean"])
    for name, (at, values) in zip(names, found, strict=True):
        assert at == TIME + timedelta(microseconds=expected[name][0])
        assert values["mean"].double_val == expected[name][1]
