"""What the serving benchmark scores: a model of realistic size, a filled store, transactions."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import redis

from bentos.base.caller import LOCAL
from fraud.contract.transaction import Transaction, encode_transaction, parse_transaction
from fraud.features.entities import ENTITIES
from fraud.features.feature_list import VECTOR
from fraud.features.profiles import SERVED_PROFILES
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from stores.keys import open_keys
from stores.model_signature import sign_model
from stores.redis_layout import NEWEST_WINS, encode_bytes, encode_double, entity_key, newest_wins_args
from stores.settings import settings

_START_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z
#: Who asks: the transactions are of a day of the past.
CALLER = LOCAL._replace(replays=True)
_PEOPLE, _SHOPS = 4000, 1000


def build_model(home: Path, version: str = "bench", *, trees: int = 300, leaves: int = 63) -> None:
    """A LightGBM model of the usual size over the whole vector, into the store of `home`."""
    import lightgbm

    random = np.random.default_rng(7)
    rows = random.lognormal(1, 1, size=(6_000, len(VECTOR)))
    rows[random.random(rows.shape) < 0.15] = np.nan
    signal = np.nan_to_num(rows[:, :40]) @ random.normal(size=40)
    label = (signal + random.normal(scale=4, size=len(rows)) > np.quantile(signal, 0.97)).astype(int)
    parameters = {
        "objective": "binary", "num_leaves": leaves, "learning_rate": 0.03, "min_data_in_leaf": 10,
        "num_threads": 1, "verbose": -1, "seed": 7,
    }  # fmt: skip
    text = lightgbm.train(parameters, lightgbm.Dataset(rows, label), trees).model_to_string().encode()
    folder = home / "bentoml" / "models" / "tollgate_fraud" / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.txt").write_bytes(text)
    manifest = {
        "version": version, "digest": hashlib.sha256(text).hexdigest(), "features": list(VECTOR),
        "thresholds": {"review": 0.9, "block": 0.98}, "calibration": None, "metrics": {},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sign_model(folder, version, open_keys(settings()).seal("models"))
    (folder.parent / "latest").write_text(version)


def _body(random: np.random.Generator, name: str, event_ms: int) -> Transaction:
    # A customer keeps to one card, device and address, as most do.
    person = random.integers(_PEOPLE)
    places = {"merchant": random.integers(_SHOPS), "terminal": random.integers(_SHOPS)}
    ids = {entity.name: f"{entity.name}-{places.get(entity.name, person):05d}" for entity in ENTITIES}
    event = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(event_ms // 1000)) + f".{event_ms % 1000:03d}Z"
    return parse_transaction(
        json.dumps(
            {
                "transaction_id": name,
                "event_time": event,
                "customer_id": ids["customer"],
                "card_id": ids["card"],
                "merchant_id": ids["merchant"],
                "terminal_id": ids["terminal"],
                "device_id": ids["device"],
                "ip": ids["ip"],
                "amount": f"{random.lognormal(3.3, 1):.2f}",
                "currency": "EUR",
                "channel": "pos",
                "merchant_category": "5411",
                "country": "DE",
                "latitude": 52.5,
                "longitude": 13.4,
            }
        ).encode()
    )


def transactions(number: int, prefix: str, *, seed: int = 1) -> list[Transaction]:
    """`number` transactions, all ids of their own."""
    random = np.random.default_rng(seed)
    return [_body(random, f"{prefix}-{place}", _START_MS + place) for place in range(number)]


def bodies(number: int, prefix: str, *, seed: int = 1) -> list[bytes]:
    """`transactions` as JSON."""
    return [encode_transaction(one) for one in transactions(number, prefix, seed=seed)]


def fill_store(url: str, project: str, *, events: int = 20_000, at_ms: int = _START_MS) -> None:
    """Profiles and velocity states of every entity as of `at_ms`, written as the online store and the flow
    write them."""
    random = np.random.default_rng(3)
    states: dict[tuple[int, str], VelocityState] = {}
    for place in range(events):
        past = _body(random, f"past-{place}", at_ms - 86_400_000 + place * (86_000_000 // events))
        observation = observe(past)
        for index, entity in enumerate(ENTITIES):
            value = observation.ids[index]
            assert value is not None
            state = states.setdefault((index, value), VelocityState(entity))
            state.add(observation, index)
    cut = (at_ms - 3_600_000) * 1000
    client = redis.Redis.from_url(url)
    script: Any = client.script_load(NEWEST_WINS)
    with client.pipeline(transaction=False) as pipe:
        for (index, value), state in states.items():
            entity = ENTITIES[index]
            key = entity_key(project, entity.key, value)
            names = SERVED_PROFILES[entity.name]
            values = [encode_double(float(random.integers(0, 3))) for _ in names]
            packed = [encode_bytes(state.pack())]
            for arguments in (
                newest_wins_args(entity.profile_view, names, [(cut, values)], names),
                newest_wins_args(entity.velocity_view, [entity.state_feature], [(state.version, packed)]),
            ):
                pipe.evalsha(script, 1, key, *arguments)
            if len(pipe) >= 500:
                pipe.execute()
        pipe.execute()
