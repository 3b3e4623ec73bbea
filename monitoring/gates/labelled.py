"""Facts that only a training set or a decision log has."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from monitoring.gates.suites import FEATURES

_ROWS: Final = 50_000
_FEWEST: Final = 50


def training_facts(frame: pd.DataFrame) -> dict[str, float | None]:
    """Frauds, their share, features absent or empty, and how well the best one alone ranks."""
    held = [name for name in FEATURES if name in frame]
    labels = (
        frame["is_fraud"].fillna(0).astype(int) if "is_fraud" in frame else pd.Series(0, index=frame.index)
    )
    empty = sum(bool(frame[name].isna().all()) for name in held)
    return {
        "frauds": float(labels.sum()),
        "fraud_share": float(labels.mean()) if len(frame) else None,
        "features_absent": float(len(FEATURES) - len(held)),
        "features_empty_share": empty / len(held) if held else None,
        "best_single_auc": best_single_auc(frame, labels, held),
    }


def best_single_auc(frame: pd.DataFrame, labels: pd.Series, names: list[str]) -> float | None:
    """The area under the ROC curve of the feature that ranks frauds best by itself, either way up.

    Over at most 50,000 rows; missing values rank lowest. None with fewer than 50 frauds among them.
    """
    step = max(len(frame) // _ROWS, 1)
    truth = labels.to_numpy()[::step] == 1
    frauds, others = int(truth.sum()), int((~truth).sum())
    if frauds < _FEWEST or not others:
        return None
    best = 0.5
    for name in names:
        values = frame[name].to_numpy(np.float64)[::step]
        ranks = pd.Series(np.where(np.isnan(values), -np.inf, values)).rank().to_numpy()
        area = (ranks[truth].sum() - frauds * (frauds + 1) / 2) / (frauds * others)
        best = max(best, area, 1 - area)
    return float(best)


def decision_facts(frame: pd.DataFrame) -> dict[str, float | None]:
    """Features absent, the share of degraded answers, and breaks in the chain of hashes."""
    degraded = frame["degraded"].map(_filled) if "degraded" in frame else pd.Series(False, index=frame.index)
    return {
        "features_absent": float(sum(name not in frame for name in FEATURES)),
        "degraded_share": float(degraded.mean()) if len(frame) else None,
        "chain_breaks": float(chain_breaks(frame)),
    }


def _filled(value: Any) -> bool:
    return value is not None and len(value) > 0


def chain_breaks(frame: pd.DataFrame) -> int:
    """Records whose `previous_hash` is not the hash of the record before them in their series,
    where both are here, and records that share a place in a series."""
    if not {"sequence", "hash", "previous_hash"} <= set(frame.columns):
        return 0
    by = ["series", "sequence"] if "series" in frame else ["sequence"]
    chain = frame[[*by, "hash", "previous_hash"]].sort_values(by, kind="stable")
    doubled = int(chain.duplicated(by).sum())
    earlier = chain.shift()
    follows = chain["sequence"] == earlier["sequence"] + 1
    if "series" in frame:
        follows &= chain["series"] == earlier["series"]
    return doubled + int((follows & (chain["previous_hash"] != earlier["hash"])).sum())
