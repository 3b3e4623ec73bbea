"""The sink beside a raw redis-py pipeline of the same bytes, and beside `FeatureStore.push`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pandas as pd
import redis

from benchmarks.streaming_flow import platform
from fraud.features.entities import ENTITIES
from stores.redis_layout import encode_bytes, encode_timestamp, entity_key, field, ts_field
from stores.settings import settings
from streaming.online.online_writer import OnlineWriter
from streaming.states.shard_batch import Writes

_ROWS = 1_000
_STATE_BYTES = 400
_VERSION = 1_772_323_200_000_001


def measure_sink(rounds: int, push_rounds: int) -> dict[str, float]:
    """Rows a second of each, in batches of 1,000 rows of one packed state."""
    customer = ENTITIES[0]
    names = [f"customer-{index}" for index in range(_ROWS)]
    states = [bytes([index % 251]) * _STATE_BYTES for index in range(_ROWS)]
    with platform() as server:
        project = settings().feast.project
        writer = OnlineWriter(server.url, project)
        client = redis.Redis.from_url(server.url)
        fields = (ts_field(customer.velocity_view), field(customer.velocity_view, customer.state_feature))

        def sink(turn: int) -> None:
            version = _VERSION + turn * 1_000
            writer.write([Writes(0, names, [version] * _ROWS, states, 0)])

        def raw(turn: int) -> None:
            encoded = encode_timestamp(_VERSION + turn * 1_000)
            pipeline = client.pipeline(transaction=False)
            for name, state in zip(names, states, strict=True):
                key = entity_key(project, customer.key, name)
                pipeline.hset(key, mapping={fields[0]: encoded, fields[1]: encode_bytes(state)})  # type: ignore[arg-type]
            pipeline.execute()

        rates = {"sink": _rate(sink, rounds), "raw": _rate(raw, rounds)}
        rates["push"] = _rate(_push(names, states), push_rounds)
        writer.close()
        client.close()
    return {
        "ratio_to_raw": round(rates["sink"] / rates["raw"], 3),
        "ratio_to_push": round(rates["sink"] / rates["push"], 2),
        "rows_per_s": round(rates["sink"]),
        "raw_rows_per_s": round(rates["raw"]),
        "push_rows_per_s": round(rates["push"]),
    }


def _push(names: list[str], states: list[bytes]) -> Callable[[int], None]:
    from feast.data_source import PushMode

    from feature_repo.store import apply_definitions, open_store

    apply_definitions()
    store = open_store()

    def push(turn: int) -> None:
        moment = datetime.fromtimestamp(_VERSION / 1e6 + turn, UTC)
        frame = pd.DataFrame(
            {
                "customer_id": names,
                "event_timestamp": moment,
                "created_timestamp": moment,
                "customer_state": states,
            }
        )
        store.push("customer_updates", frame, to=PushMode.ONLINE)

    return push


def _rate(write: Callable[[int], None], rounds: int) -> float:
    """Rows a second of the fastest round."""
    write(0)
    best = 0.0
    for turn in range(1, rounds + 1):
        began = time.perf_counter()
        write(turn)
        best = max(best, _ROWS / (time.perf_counter() - began))
    return best
