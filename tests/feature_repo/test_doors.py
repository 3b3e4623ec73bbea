"""Feast's own doors: features by name and key, no hashes or codes, only what is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis

from embedded.redis_server import RedisServer
from feature_repo.store import apply_definitions, open_store
from fraud.contract.transaction import parse_transaction
from fraud.features.entities import ENTITIES
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from stores.redis_layout import encode_bytes, encode_timestamp, entity_key, field, ts_field
from stores.settings import settings

FIGURES = ["card_txn_count_1h", "card_amount_sum_24h", "card_amount_mean_24h", "card_amount_zscore_24h"]


@pytest.fixture
def chosen(home: object, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    url = f"redis://127.0.0.1:{redis_server.port}/13"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    monkeypatch.setenv("TOLLGATE_REDIS_URL", url)
    settings.cache_clear()
    apply_definitions()
    yield url
    settings.cache_clear()


def store_state(url: str, minutes: tuple[int, ...]) -> None:
    """A card's state with payments of 10.00 USD so many minutes ago."""
    now = datetime.now(UTC)
    state = VelocityState(ENTITIES[1])
    for number, ago in enumerate(sorted(minutes, reverse=True)):
        body = {
            "transaction_id": f"t{number}", "event_time": (now - timedelta(minutes=ago)).isoformat(),
            "customer_id": "c", "card_id": "k", "merchant_id": "m", "amount": "10.00", "currency": "USD",
            "channel": "pos",
        }  # fmt: skip
        state.add(observe(parse_transaction(json.dumps(body).encode())), 1)
    with redis.Redis.from_url(url) as client:
        client.hset(
            entity_key(settings().feast.project, "card_id", "k"),
            mapping={field("card_velocity", "card_state"): encode_bytes(state.pack()),
                     ts_field("card_velocity"): encode_timestamp(state.version)},
        )  # fmt: skip


def test_figures_of_a_state_are_served_by_name_and_key_alone(chosen: str) -> None:
    store_state(chosen, (10, 50, 200))
    found = open_store().get_online_features(
        features=[f"card_velocity:{name}" for name in FIGURES],
        entity_rows=[{"card_id": "k"}, {"card_id": "nobody"}],
    ).to_dict()  # fmt: skip
    assert set(found) == {"card_id", *FIGURES}
    assert found["card_txn_count_1h"] == [2.0, None]
    assert found["card_amount_mean_24h"][0] == pytest.approx(found["card_amount_sum_24h"][0] / 3)
    assert found["card_amount_zscore_24h"] == [None, None]  # compares with a transaction: there is none


def test_the_registry_describes_every_figure_and_what_computes_it(chosen: str) -> None:
    store = open_store()
    described = {each.name: each.description for each in store.get_feature_view("card_velocity").features}
    assert described["card_txn_count_1h"] == "transactions of the card in the last 1h"
    profile = store.get_feature_view("card_profile")
    assert profile.tags["tollgate.figure.card_amount_max_30d"] == "max(amount) over 30d"
    assert all(each.description for each in profile.features if each.name != "card_id")
