"""Exact SHAP values of one transaction, on request: milliseconds, so never inline.

`explain` reads features as scoring does now, and decides nothing: no log entry, no event, no memory.
`explain_decision` explains a decision as it was made, from the decision log.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from time import perf_counter
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import uuid4

import msgspec
import numpy as np

from bentos.base.caller import Caller
from bentos.base.problem import Problem
from bentos.base.work import Work
from bentos.models.deployment import Scoring
from bentos.scoring.engine import Engine
from bentos.scoring.scorer import vector
from fraud.contract.transaction import ContractError, canonical_id
from fraud.features.phrases import REASON_CODES
from machine.contained import Contained, python
from stores.declared import served_vector
from stores.models import Floats
from stores.run_folder import open_run_folder
from stores.settings import REPOSITORY

_log = logging.getLogger("tollgate.explain")


#: Decisions that a worker looks up at once: each takes a process and a second.
_LOOKING: Final = asyncio.Semaphore(2)
_LOOK_SECONDS: Final = 20.0
_BEHIND: Final = 10


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
    return {
        "transaction_id": work.own_id,
        "fraud_score": float(scoring.calibrated(scoring.model.raw(rows), [limits])[0]),
        "model_version": scoring.version,
        "variant": variant,
        **_contributions(scoring, rows),
        "feature_status": online.status[0],
        "degraded": [shortfall] if shortfall else [],
    }


def _contributions(scoring: Scoring, rows: Floats) -> dict[str, Any]:
    """Every feature's SHAP value of one row of the model's own columns, largest first."""
    contributions = scoring.model.contributions(rows)[0]
    names = scoring.model.manifest.features
    return {
        "method": "TreeSHAP, log-odds of the uncalibrated model",
        "base_value": float(contributions[-1]),
        "contributions": [
            {
                "feature": names[index],
                "value": None if math.isnan(rows[0, index]) else float(rows[0, index]),
                "shap": float(contributions[index]),
            }
            for index in np.argsort(-np.abs(contributions[:-1])).tolist()
            if contributions[index] != 0.0
        ],
    }


async def explain_decision(engine: Engine, caller: Caller, query: bytes) -> dict[str, Any]:
    """A decision of the caller's as it was made: what is in the log, codes in words, and SHAP values if the
    model that made it is still in service. Raises `Problem`: 422, 404, or 503 when too many are asked for.
    """
    asked = parse_qs(query.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=8)
    given = asked.get("transaction_id", [])
    if set(asked) != {"transaction_id"} or len(given) != 1 or not given[0]:
        raise Problem(422, "transaction_id", "should be given once, as ?transaction_id=…, and nothing else")
    inside = caller.inside(given[0])
    try:
        canonical_id(given[0])  # what no transaction can be called need not be looked for, or passed on
    except ContractError as error:
        raise Problem(422, error.field, error.reason) from None
    if _LOOKING.locked():
        raise Problem(503, "(service)", "too many decisions are looked up already", retry_after=5)
    async with _LOOKING:
        found = await asyncio.to_thread(_look_up, engine, inside)
    if found is None:
        raise Problem(404, "transaction_id", "the decision log holds no decision on it")
    found["transaction_id"] = given[0]
    found["reasons"] = [
        {"code": code, "meaning": REASON_CODES.get(code, code)} for code in found["reason_codes"]
    ]
    known = {scoring.version: scoring for scoring in engine.scorer.scores.room.current.scorings()}
    scoring = known.get(found["model_version"])
    if scoring is not None:
        served = served_vector()
        row = np.array([[found["features"].get(name, math.nan) for name in served]])
        found |= _contributions(scoring, scoring.rows(row))
    return found


def _look_up(engine: Engine, transaction_id: str) -> dict[str, Any] | None:
    """What the log holds of a decision; a process of its own reads it."""
    folder = open_run_folder(engine.settings.run) / "explained"
    folder.mkdir(mode=0o700, exist_ok=True)
    out = folder / f"{uuid4().hex}.json"
    command = python("-m", "bentos.tools.find_decision", "--out", str(out), "--", transaction_id)
    environment = {
        **os.environ,
        "TOLLGATE_HOME": str(engine.settings.home.absolute()),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])),
    }
    try:
        outcome = Contained(command, seconds=_LOOK_SECONDS, environment=environment, niceness=_BEHIND).wait()
        if outcome.ended is not None:
            _log.error(
                "a decision could not be looked up",
                extra={"ended": outcome.ended, "complaints": outcome.complaints},
            )
            raise Problem(503, "(service)", "the decision log could not be read", retry_after=5)
        found: dict[str, Any] | None = msgspec.json.decode(out.read_bytes())
    finally:
        out.unlink(missing_ok=True)
    return found
