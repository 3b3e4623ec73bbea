"""What the tests of the service build: a tiny model, a filled store, the service in its own process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import httpx
import lightgbm
import numpy as np
import redis
from redis.cluster import RedisCluster

from bentos.base.caller import LOCAL
from embedded.redis_server import free_port
from fraud.contract.transaction import Transaction, parse_transaction
from fraud.features.entities import ENTITIES
from fraud.features.feature_list import VECTOR
from fraud.features.profiles import SERVED_PROFILES
from fraud.state.observation import observe
from fraud.state.velocity import VERSION, VelocityState
from stores.keys import Keys
from stores.model_signature import sign_model
from stores.redis_clients import connect_cluster
from stores.redis_layout import (
    encode_bytes,
    encode_double,
    encode_row,
    encode_timestamp,
    entity_key,
    field,
    row_field,
    ts_field,
)
from stores.redis_url import is_cluster

#: Tests replay a day of the past, unless they say otherwise.
NOW = "2026-03-01T12:00:00Z"
CALLER = LOCAL._replace(replays=True)


def transaction_json(**changes: Any) -> dict[str, Any]:
    """A valid transaction as a client would send it, with `changes`; None removes a field."""
    body = {
        "transaction_id": "t-1", "event_time": NOW, "customer_id": "customer-1", "card_id": "card-1",
        "merchant_id": "merchant-1", "terminal_id": "terminal-1", "device_id": "device-1",
        "ip": "198.51.100.7",
        "amount": "12.50", "currency": "EUR", "channel": "pos", "merchant_category": "5411", "country": "DE",
        "latitude": 52.52, "longitude": 13.4,
    } | changes  # fmt: skip
    return {name: value for name, value in body.items() if value is not None}


def transaction(**changes: Any) -> Transaction:
    return parse_transaction(json.dumps(transaction_json(**changes)).encode())


def save_model(
    home: Path, version: str, *, seed: int = 0, trees: int = 20, review: float = 0.5, block: float = 0.8,
    calibration: dict[str, Any] | None = None, features: Sequence[str] = VECTOR,
) -> Path:  # fmt: skip
    """Train a tiny model on noise around the amount and put it into the store's layout."""
    random = np.random.default_rng(seed)
    rows = random.lognormal(2, 1, size=(1500, len(features)))
    rows[random.random(rows.shape) < 0.2] = np.nan
    amount = list(features).index("txn_amount")
    rows[:, amount] = random.lognormal(8, 1.5, len(rows))
    label = (rows[:, amount] > 30_000).astype(int)
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, "seed": seed}
    text = lightgbm.train(parameters, lightgbm.Dataset(rows, label), trees).model_to_string().encode()
    store = home / "bentoml" / "models" / "tollgate_fraud"
    folder = store / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.txt").write_bytes(text)
    manifest = {
        "version": version, "digest": hashlib.sha256(text).hexdigest(), "features": list(features),
        "thresholds": {"review": review, "block": block}, "calibration": calibration, "metrics": {},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sign(folder)
    (store / "latest").write_text(version)
    return folder


def sign(folder: Path) -> None:
    """Sign the model in `folder` as training does, with the tests' keys."""
    sign_model(folder, folder.name, Keys(Path(os.environ["TOLLGATE_KEYS_FILE"])).seal("models"))


def store_features(
    client: redis.Redis | RedisCluster,
    project: str,
    scored: Transaction,
    *,
    age_us: int = 3_600_000_000,
    side_by_side: bool = True,
) -> None:
    """Profiles (value = place in the entity's list) and states for every entity of `scored`.

    Both are `age_us` older than the transaction. Without `side_by_side` profiles are as another program
    writes them.
    """
    at_us = scored.event_ms * 1000 - age_us
    earlier = parse_transaction(
        json.dumps(
            transaction_json(transaction_id="earlier", event_time="2026-03-01T11:00:00Z", amount="30.00")
        ).encode()
    )
    for place, entity in enumerate(ENTITIES):
        value = getattr(scored, entity.key)
        if value is None:
            continue
        state = VelocityState(entity)
        state.add(observe(earlier), place)
        state.header[VERSION] = at_us
        names = SERVED_PROFILES[entity.name]
        values = [encode_double(float(index)) for index in range(len(names))]
        mapping: dict[bytes, bytes] = {
            field(entity.profile_view, name): value for name, value in zip(names, values, strict=True)
        }
        if side_by_side:
            mapping[row_field(entity.profile_view, names)] = encode_row(at_us, values)
        mapping[ts_field(entity.profile_view)] = encode_timestamp(at_us)
        mapping[field(entity.velocity_view, entity.state_feature)] = encode_bytes(state.pack())
        mapping[ts_field(entity.velocity_view)] = encode_timestamp(at_us)
        client.hset(entity_key(project, entity.key, value), mapping=mapping)  # type: ignore[arg-type]


@dataclass
class Service:
    """A running scoring service; `redis` is a client of its online store, a cluster's too."""

    url: str
    home: Path
    log: Path
    process: subprocess.Popen[bytes]
    redis: Any
    environment: dict[str, str] = dataclass_field(default_factory=dict)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_service(home: Path, redis_url: str, **environment: str) -> Service:
    """`bentoml serve` on a free port, waited for until it is ready."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = home / "service.log"
    variables = os.environ | {
        "TOLLGATE_HOME": str(home), "TOLLGATE_REDIS_URL": redis_url, "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(home / "bentoml"), "TOLLGATE_SERVE_REPLAY": "true", "TOLLGATE_RUN": str(home / "run"), "TZ": "UTC",
    } | environment  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("bentoml")), "serve", "bentos.service:FraudScorer",
             "--host", "127.0.0.1", "--port", str(port)],
            stdout=output, stderr=subprocess.STDOUT, env=variables, start_new_session=True,
        )  # fmt: skip
    client = connect_cluster(redis_url) if is_cluster(redis_url) else redis.Redis.from_url(redis_url)
    service = Service(f"http://127.0.0.1:{port}", home, log, process, client, environment)
    deadline = time.monotonic() + 240
    while True:
        try:
            if httpx.get(service.url + "/readyz").status_code == 200:
                return service
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            service.stop()
            raise RuntimeError(f"the service did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether `condition` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
