"""Redis bytes are Feast's own, and on a real Redis the newest version wins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.redis_server import RedisServer
from fraud.features.entities import ENTITIES
from stores import redis_layout as layout
from tests.either_server import redis_server

__all__ = ["redis_server"]  # a fixture

PROJECT = "tollgate"
MICROSECONDS = st.integers(0, 253_402_300_799_999_999)
#: Lua's numbers are doubles: versions are exact up to 2**53 microseconds, in the year 2255.
VERSIONS = st.integers(0, 2**53)
quick = settings(deadline=None, max_examples=200)


@quick
@given(st.sampled_from([entity.key for entity in ENTITIES]) | st.text(max_size=20), st.text(max_size=80))
def test_an_entity_key_is_feasts_own(join_key: str, value: str) -> None:
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=[join_key], entity_values=[Value(string_val=value)])
    expected = _redis_key(PROJECT, key, entity_key_serialization_version=3)
    assert layout.entity_key(PROJECT, join_key, value) == expected


@quick
@given(st.text(max_size=40), st.text(max_size=40))
def test_a_hash_field_is_feasts_own(view: str, feature: str) -> None:
    from feast.infra.online_stores.helpers import _mmh3

    assert layout.field(view, feature) == _mmh3(f"{view}:{feature}")


@quick
@given(st.floats(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=2_000))
def test_values_are_feasts_own(double: float, integer: int, blob: bytes) -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    assert layout.encode_double(double) == Value(double_val=double).SerializeToString()
    assert layout.encode_int64(integer) == Value(int64_val=integer).SerializeToString()
    assert layout.encode_bytes(blob) == Value(bytes_val=blob).SerializeToString()
    assert layout.decode_bytes(layout.encode_bytes(blob)) == blob


@quick
@given(st.binary(max_size=40))
def test_bytes_that_hold_no_bytes_value_are_refused_or_read(noise: bytes) -> None:
    try:
        found = layout.decode_bytes(noise)
    except ValueError:
        return
    assert noise.endswith(found)


@quick
@given(MICROSECONDS)
def test_a_timestamp_is_protobufs_own_and_comes_back(microseconds: int) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    timestamp = Timestamp()
    timestamp.FromMicroseconds(microseconds)
    assert layout.encode_timestamp(microseconds) == timestamp.SerializeToString()
    assert layout.decode_timestamp(layout.encode_timestamp(microseconds)) == microseconds


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_server.url)
    client.flushdb()
    yield client
    client.close()


VIEW, FEATURES = "customer_velocity", ("customer_state", "customer_score")
NOW = 1_772_366_400_250_001


def write(store: redis.Redis, rows: dict[bytes, tuple[int, list[bytes]]], view: str = VIEW) -> int:
    args = layout.newest_wins_args(view, FEATURES, list(rows.values()))
    return int(store.eval(layout.NEWEST_WINS, len(rows), *rows, *args))  # type: ignore[arg-type]


def stored(store: redis.Redis, key: bytes, view: str = VIEW) -> tuple[int, list[bytes | None]]:
    names = [layout.ts_field(view), *(layout.field(view, feature) for feature in FEATURES)]
    timestamp, *values = store.hmget(key, names)  # type: ignore[misc, arg-type]
    return layout.decode_timestamp(timestamp or b""), values


@pytest.mark.parametrize(
    ("shift", "wins"), [(-1, False), (-1_000_000, False), (0, True), (1, True), (10**12, True)]
)
def test_a_newer_or_equal_version_is_written_and_an_older_is_ignored(
    store: redis.Redis, shift: int, wins: bool
) -> None:
    key = layout.entity_key(PROJECT, "customer_id", "c-1")
    first, second = [b"a", b"b"], [b"", b"\x00\xff"]
    assert write(store, {key: (NOW, first)}) == 1
    assert write(store, {key: (NOW + shift, second)}) == int(wins)
    assert stored(store, key) == ((NOW + shift, second) if wins else (NOW, first))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 3), VERSIONS), min_size=1, max_size=30))
def test_in_any_order_what_stays_is_the_newest(
    redis_server: RedisServer, updates: list[tuple[int, int]]
) -> None:
    with redis.Redis.from_url(redis_server.url) as store:
        store.flushdb()
        newest: dict[bytes, tuple[int, list[bytes]]] = {}
        for number, (name, version) in enumerate(updates):
            key = layout.entity_key(PROJECT, "customer_id", f"c-{name}")
            values = [layout.encode_int64(number), b""]
            wins = key not in newest or version >= newest[key][0]
            assert write(store, {key: (version, values)}) == int(wins)
            if wins:
                newest[key] = (version, values)
        for key, row in newest.items():
            assert stored(store, key) == row


def test_one_call_writes_many_keys_and_decides_for_each(store: redis.Redis) -> None:
    keys = [layout.entity_key(PROJECT, "customer_id", f"c-{number}") for number in range(500)]
    assert write(store, {key: (NOW + number, [b"old", b""]) for number, key in enumerate(keys)}) == 500
    assert write(store, {key: (NOW + 250, [b"new", b""]) for key in keys}) == 251
    assert [stored(store, key)[1][0] for key in keys] == [b"new"] * 251 + [b"old"] * 249


def test_views_on_one_key_do_not_disturb_each_other(store: redis.Redis) -> None:
    key = layout.entity_key(PROJECT, "customer_id", "c-1")
    write(store, {key: (NOW, [b"a", b"b"])})
    assert write(store, {key: (NOW - 5, [b"c", b"d"])}, view="customer_profile") == 1
    assert stored(store, key) == (NOW, [b"a", b"b"])
    assert stored(store, key, "customer_profile") == (NOW - 5, [b"c", b"d"])


def test_a_null_is_an_empty_value_as_feast_writes_it(store: redis.Redis) -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    key = layout.entity_key(PROJECT, "customer_id", "c-1")
    write(store, {key: (NOW, [Value().SerializeToString(), layout.encode_double(1.5)])})
    version, (null, double) = stored(store, key)
    assert version == NOW
    assert not Value.FromString(null or b"").WhichOneof("val")
    assert Value.FromString(double or b"").double_val == 1.5


def test_a_version_of_the_epoch_itself_is_a_version(store: redis.Redis) -> None:
    key = layout.entity_key(PROJECT, "customer_id", "c-1")
    for version, written in ((0, 1), (0, 1), (1, 1), (0, 0)):
        assert write(store, {key: (version, [b"", b""])}) == written


def test_a_key_that_nothing_writes_to_is_dropped_and_each_day_of_writes_postpones_it(
    store: redis.Redis,
) -> None:
    #  day      0 (written)     0 (again)      1            2 (an older version)
    #  expiry   set             left alone     set anew     left alone
    key, day = layout.entity_key(PROJECT, "customer_id", "c-1"), 86_400_000_000
    for shift, renewed in ((0, True), (5, False), (day, True), (day // 2, False), (3 * day, True)):
        if store.exists(key):
            store.expire(key, 100)
        write(store, {key: (NOW + shift, [b"a", b"b"])})
        assert (store.ttl(key) > 30 * 86_400) is renewed
