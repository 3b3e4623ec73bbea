"""Models made by hand in the store, in milliseconds: a stump of one feature, its manifest, card and signature."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np

from stores.keys import open_keys
from stores.model_signature import sign_model
from stores.settings import settings
from training.gates import card_path
from training.gates_live import experiment_path
from training.save import model_folder

FEATURE: Final = "txn_amount"


def stump_text() -> str:
    """A model that scores under 1 in 100 where the feature is 0, and above 99 in 100 where it is 1."""
    value = np.repeat([0.0, 1.0], 50)
    chosen = {
        "objective": "binary",
        "num_leaves": 2,
        "min_data_in_leaf": 1,
        "learning_rate": 0.5,
        "verbose": -1,
    }
    rows = lightgbm.Dataset(value[:, None], value, feature_name=[FEATURE])
    return str(lightgbm.train(chosen, rows, num_boost_round=60).model_to_string())


def made_model(
    version: str, text: str = "tree\n", *, signed: bool = True, card: Any = None, **changes: Any
) -> Path:
    """Put `version` in the store of this home; return its folder."""
    folder = model_folder(version)
    folder.mkdir(parents=True)
    (folder / "model.txt").write_text(text)
    manifest = {
        "version": version,
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "features": [FEATURE],
        "thresholds": {"review": 0.5, "block": 0.9},
        "calibration": None,
        "metrics": {"brier": 0.001, "brier_base_rate": 0.004, "frauds": 500},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    if signed:
        sign_model(folder, version, open_keys(settings()).seal("models"))
    if card is not None:
        made_card(version, card)
    return folder


#: A card's figures of a model that stops as many without any view as with all of them.
CALM: Final = {
    "alerts_per_day": 100,
    "patterns": [
        {"name": name, "kind": kind, "rows": 10_000, "review_rate": 0.01, "block_rate": 0.0, "reviews_per_day": 50}
        for name, kind in (("undisturbed", "undisturbed"), ("everything", "everything"))
    ],
}  # fmt: skip


def made_card(version: str, card: Any) -> None:
    path = card_path(version)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(CALM | card))


def made_experiment(version: str, champion: str, verdict: str = "better") -> None:
    """The report on the live decisions of a challenger."""
    path = experiment_path(version)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"champion_version": champion, "verdict": verdict, "reason": "by hand"}))


def against(champion: str, difference: float, low: float, high: float) -> dict[str, Any]:
    """A card that compares with `champion`, on the same rows."""
    return {
        "champion": {"version": champion, "average_precision_difference": difference, "interval": [low, high]}
    }
