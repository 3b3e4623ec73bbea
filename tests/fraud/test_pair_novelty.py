"""Novelty of a pair is asked of the side that has few partners: a busy merchant forgets, a card does not."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from fraud.contract.transaction import Transaction, parse_transaction
from fraud.features.entities import ENTITIES
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES
from fraud.features.on_demand import packed_rows, request_rows
from fraud.features.request import request_values
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from fraud.state.windows import joined

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def payment(number: int, at: datetime, **changes: Any) -> Transaction:
    body = {
        "transaction_id": f"t-{number}", "event_time": at.isoformat(), "customer_id": "c", "card_id": "k",
        "merchant_id": "m", "amount": "1.00", "currency": "EUR", "channel": "pos",
    } | changes  # fmt: skip
    return parse_transaction(json.dumps(body).encode())


class Platform:
    """The states of every entity after what was paid, and the features of what comes next."""

    def __init__(self) -> None:
        self._states: dict[tuple[int, str], VelocityState] = {}

    def take(self, one: Transaction) -> None:
        seen = observe(one)
        for place, value in enumerate(seen.ids):
            if value is not None:
                self._states.setdefault((place, value), VelocityState(ENTITIES[place])).add(seen, place)

    def features(self, one: Transaction) -> dict[str, float]:
        keys = list(enumerate(observe(one).ids))
        states = [self._states[key].pack() if key in self._states else None for key in keys]  # type: ignore[index]
        row = packed_rows(
            *joined(states), request_rows([request_values(one, one.event_ms, one.amount_reference)]),
            np.full((1, len(PROFILE_INPUTS)), np.nan),
        )  # fmt: skip
        names = [feature.name for feature in TRANSACTION_FEATURES]
        return dict(zip(names, row[0].tolist(), strict=True))


@pytest.mark.parametrize("crowd", [30, 300])
def test_a_merchant_knows_every_card_of_the_day_however_many_there_are(crowd: int) -> None:
    draw = random.Random(1)
    platform = Platform()
    last: dict[tuple[str, str], datetime] = {}
    for number in range(crowd * 3):
        at = START + 2 * DAY * number / (crowd * 3)
        card, merchant = f"card-{draw.randrange(crowd)}", draw.choice(["busy", "busy", "quiet"])
        one = payment(number, at, card_id=card, customer_id=card, merchant_id=merchant)
        found = platform.features(one)
        before = last.get((card, merchant))
        new = before is None or before < at - DAY
        seen_there = any(pair[1] == merchant for pair in last)
        seen_by = any(pair[0] == card for pair in last)
        if seen_there:
            assert found["merchant_new_card_24h"] == float(new)
        if seen_by:
            assert found["card_new_merchant_24h"] == float(new)
        platform.take(one)
        last[card, merchant] = at


def test_a_device_farm_knows_its_cards_and_customers() -> None:
    draw = random.Random(2)
    platform = Platform()
    last: dict[str, datetime] = {}
    for number in range(600):
        at = START + DAY * number / 400
        card = f"card-{draw.randrange(200)}"
        one = payment(
            number, at, card_id=card, customer_id=f"of-{card}", device_id="farm", merchant_id=f"m-{number}"
        )
        found = platform.features(one)
        if number:
            new = card not in last or last[card] < at - DAY
            assert found["device_new_card_24h"] == found["device_new_customer_24h"] == float(new)
        platform.take(one)
        last[card] = at
