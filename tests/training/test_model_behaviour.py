"""What a model must not care about: how ids are spelt, and how an amount is written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fraud.contract.transaction import Transaction, parse_transaction
from fraud.features.entities import ENTITIES
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES
from fraud.features.on_demand import transaction_matrix
from fraud.features.request import request_row
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from training.model import Model, Sample, fit, text_of

NAMES = tuple(feature.name for feature in TRANSACTION_FEATURES)
IDS = ("customer_id", "card_id", "merchant_id", "terminal_id", "device_id")


def day(changes: dict[str, Any] | None = None, *, rename: str = "", places: int = 2) -> list[Transaction]:
    """A day of one customer at three merchants, in order of time; ids end in `rename`, amounts have
    so many decimals."""
    bodies = []
    for number in range(24):
        body = {
            "transaction_id": f"t{number}", "event_time": f"2026-03-01T{number:02d}:10:00Z",
            "customer_id": "c", "card_id": f"k{number % 2}", "merchant_id": f"m{number % 3}",
            "terminal_id": f"x{number % 4}", "device_id": f"d{number % 5 == 0}", "ip": "198.51.100.7",
            "amount": f"{67 * (number + 1):.{places}f}", "currency": "USD", "channel": "pos", "country": "DE",
        } | (changes or {})  # fmt: skip
        bodies.append({name: value + rename if name in IDS else value for name, value in body.items()})
    return [parse_transaction(json.dumps(body).encode()) for body in bodies]


def vectors(transactions: list[Transaction]) -> np.ndarray:
    """Request-time features of each transaction after those before it, without profiles."""
    states: dict[tuple[str, str], VelocityState] = {}
    rows = []
    for each in transactions:
        keys = [(entity.name, getattr(each, entity.key)) for entity in ENTITIES]
        request = {name: np.array([value]) for name, value in request_row(each).items()}
        packed = [[states[key].pack() if key in states else None] for key in keys]
        rows.append(
            transaction_matrix(packed, request, {name: np.array([np.nan]) for name in PROFILE_INPUTS})
        )
        for place, (key, entity) in enumerate(zip(keys, ENTITIES, strict=True)):
            states.setdefault(key, VelocityState(entity)).add(observe(each), place)
    return np.concatenate(rows)


@pytest.fixture(scope="module")
def model() -> Model:
    """Trees that read many of the features, grown on a label that follows amounts and bursts."""
    random = np.random.default_rng(5)
    rows = random.lognormal(3, 2, size=(2_000, len(NAMES)))
    rows[random.random(rows.shape) < 0.3] = np.nan
    label = (np.nansum(rows[:, ::7], axis=1) > np.nanmedian(np.nansum(rows[:, ::7], axis=1))).astype(np.int8)
    booster, _ = fit(Sample(rows, label), NAMES, {}, rounds=20, threads=1)
    return Model(text_of(booster, 20), NAMES)


def test_renamed_ids_change_no_feature_and_no_score(model: Model) -> None:
    before, after = vectors(day()), vectors(day(rename="-renamed"))
    assert np.array_equal(before, after, equal_nan=True)
    assert np.array_equal(model.score(before), model.score(after))
    assert len(np.unique(model.score(before))) > 3


def test_an_amount_written_with_other_decimals_changes_no_score(model: Model) -> None:
    assert np.array_equal(vectors(day(places=2)), vectors(day(places=0)), equal_nan=True)


def test_the_same_money_in_a_currency_without_minor_units_differs_in_the_currency_alone() -> None:
    # By the reference table 100 JPY are 67 cents: the day above is in whole multiples of it.
    yen = [{"currency": "JPY", "amount": f"{10_000 * (number + 1)}"} for number in range(24)]
    in_yen = [day(changes)[number] for number, changes in enumerate(yen)]
    dollars, yens = vectors(day()), vectors(in_yen)
    differing = (dollars != yens) & ~(np.isnan(dollars) & np.isnan(yens))
    assert {NAMES[column] for column in np.argwhere(differing)[:, 1]} == {"txn_currency"}
