"""Exact SHAP values of one transaction, on request: milliseconds, so never inline.

Reads features as scoring does and decides nothing: no log entry, no event, no memory.
"""

from __future__ import annotations

import asyncio
import math
from time import perf_counter
from typing import Any

import numpy as np

from bentos.base.caller import Caller
from bentos.base.problem import Problem
from bentos.base.work import Work
from bentos.scoring.engine import Engine
from bentos.scoring.scorer import vector


async def explain(engine: Engine, caller: Caller, raw: bytes) -> dict[str, Any]:
    """Score, base value and every feature's SHAP value (log-odds), largest first.

    The stated time counts, however old: a transaction is explained after it was decided.
    """
    asked = engine.parse(raw, caller._replace(replays=True))
    transaction, scorer = asked.transaction, engine.scorer
    work = Work.of(asked, asyncio.get_running_loop().create_future(), perf_counter())
    read = await scorer.reader.read([work])
    online, shortfall = read.online, read.shortfall
    line = scorer.scores.room.current
    variant = (
        line.experiment.variant(getattr(transaction, line.experiment.key)) if line.challenger else "champion"
    )
    scoring = line.of(variant)
    if scoring is None:
        raise Problem(503, "(model)", "no model is in service", retry_after=5)
    rows = scoring.rows(vector([work], online))
    limits = scoring.limits.of(online.status[0], transaction)
    contributions = scoring.model.contributions(rows)[0]
    order = np.argsort(-np.abs(contributions[:-1]))
    names = scoring.model.manifest.features
    return {
        "transaction_id": work.own_id,
        "fraud_score": float(scoring.calibrated(scoring.model.raw(rows), [limits])[0]),
        "model_version": scoring.version,
        "variant": variant,
        "method": "TreeSHAP, log-odds of the uncalibrated model",
        "base_value": float(contributions[-1]),
        "contributions": [
            {
                "feature": names[index],
                "value": None if math.isnan(rows[0, index]) else float(rows[0, index]),
                "shap": float(contributions[index]),
            }
            for index in order.tolist()
            if contributions[index] != 0.0
        ],
        "feature_status": online.status[0],
        "degraded": [shortfall] if shortfall else [],
    }
