"""Saved by training, promoted by its command, served: the same scores, for every kind of model there is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bentos.models.admission import Admission
from bentos.models.deployment import ModelRoom
from fraud.features.feature_list import VECTOR
from stores.keys import open_keys
from stores.settings import settings
from tests.training.conftest import table
from training import promote
from training.calibration import fit_isotonic, fit_platt
from training.ensemble import SECOND, merged
from training.model import Model
from training.plan import Plan, Trained
from training.rows import Rows, rows_of
from training.save import save
from training.train import train

#: Served features that the synthetic set has; the model reads them in this order, which is not VECTOR's.
NAMES = ("txn_channel", "txn_amount", "terminal_fraud_rate_1d", "card_txn_count_5m")
KINDS = ("uncalibrated", "isotonic", "platt", "ensemble")


@pytest.fixture(scope="module")
def rows() -> Rows:
    return rows_of(table(rows=6_000), NAMES)


@pytest.fixture(scope="module")
def trained(rows: Rows) -> Trained:
    plan = Plan(delay_days=7, rounds=30, threads=1)
    return train(rows, plan, data={"as_of": "2020-02-20T00:00:00Z"}, progress=lambda _: None)


@pytest.fixture(scope="module")
def second(rows: Rows) -> Model:
    plan = Plan(delay_days=7, rounds=20, threads=1, seed=11, settings=SECOND)
    return train(rows, plan, data={"as_of": "2020-02-20T00:00:00Z"}, progress=lambda _: None).model


def of_kind(kind: str, trained: Trained, second: Model, rows: Rows) -> Model:
    label, raw = rows.label, trained.model.raw(rows.features)
    if kind == "isotonic":
        return replace(trained.model, calibration=fit_isotonic(label, raw))
    if kind == "platt":
        return replace(trained.model, calibration=fit_platt(label, raw))
    if kind == "ensemble":
        text = merged({trained.model.text: 0.6, second.text: 0.4})
        return Model(text, trained.model.names, fit_platt(label, Model(text, NAMES).raw(rows.features)))
    return replace(trained.model, calibration=None)


@pytest.mark.parametrize("kind", KINDS)
def test_what_training_scored_is_what_serves(
    kind: str, home: Path, trained: Trained, second: Model, rows: Rows
) -> None:
    model = of_kind(kind, trained, second, rows)
    version = save(replace(trained, model=model), rows)
    promote.champion(version, force=True)

    async def in_service() -> ModelRoom:
        room = ModelRoom(home, Admission(home / "run", open_keys(settings()).seal("models")))
        await room.refresh()
        return room

    room = asyncio.run(in_service())
    assert room.error is None
    champion = room.current.champion
    assert champion is not None and champion.version == version

    matrix = np.full((400, len(VECTOR)), np.nan)  # as serving has it: everything else is missing
    for place, name in enumerate(NAMES):
        matrix[:, VECTOR.index(name)] = rows.features[:400, place]
    served = champion.score(matrix)
    np.testing.assert_array_equal(served, model.score(rows.features[:400]))
    assert len(np.unique(served)) > 20
    np.testing.assert_array_equal(champion.score(matrix[:3]), served[:3])  # row by row, as a lone request
    raw = champion.model.raw(champion.rows(matrix))
    assert np.array_equal(raw, served) == (kind == "uncalibrated")
    for each in room.current.models():
        each.close()
