"""The online read against a raw pipelined HMGET with protobuf decoding, at 1, 16 and 64 rows."""

from __future__ import annotations

import asyncio
import statistics
from time import perf_counter

import redis

from benchmarks.serving_data import transactions
from bentos.features.online_features import OnlineFeatures, table_plan
from bentos.wire.redis_connection import RedisConnection
from fraud.contract.transaction import Transaction
from fraud.features.entities import ENTITIES
from fraud.features.profiles import SERVED_PROFILES
from stores.redis_layout import entity_key, field, ts_field


def read_ratios(url: str, project: str, *, turns: int) -> dict[str, float]:
    """Median time of our read over the raw one's, by batch size; turns alternate."""
    return asyncio.run(_ratios(url, project, turns))


async def _ratios(url: str, project: str, turns: int) -> dict[str, float]:
    from feast.protos.feast.types.Value_pb2 import Value
    from google.protobuf.timestamp_pb2 import Timestamp

    client = redis.Redis.from_url(url)
    ours = OnlineFeatures(table_plan(project))
    connection = RedisConnection(url)
    await connection.open()
    wanted = {
        entity.name: [
            *[field(entity.profile_view, name) for name in SERVED_PROFILES[entity.name]],
            field(entity.velocity_view, entity.state_feature),
            ts_field(entity.profile_view), ts_field(entity.velocity_view),
        ]
        for entity in ENTITIES
    }  # fmt: skip

    def raw(rows: list[Transaction]) -> None:
        pipe = client.pipeline(transaction=False)
        for row in rows:
            for entity in ENTITIES:
                pipe.hmget(
                    entity_key(project, entity.key, getattr(row, entity.key)),  # type: ignore[arg-type]
                    wanted[entity.name],
                )
        for values in pipe.execute():
            for value in values[:-2]:
                Value().ParseFromString(value or b"")
            for value in values[-2:]:
                Timestamp().ParseFromString(value or b"")

    async def direct(rows: list[Transaction]) -> None:
        replies = await connection.ask(ours.commands(rows), 5.0)
        ours.rows(rows, [row.event_ms * 1000 for row in rows], replies)

    result = {}
    for size in (1, 16, 64):
        mine, theirs = [], []
        for turn in range(turns):
            rows = transactions(size, "read", seed=turn)
            begun = perf_counter()
            raw(rows)
            between = perf_counter()
            await direct(rows)
            theirs.append(between - begun)
            mine.append(perf_counter() - between)
        result[f"rows_{size}"] = round(statistics.median(mine) / statistics.median(theirs), 3)
    connection.close()
    client.close()
    return result
