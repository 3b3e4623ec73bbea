"""What a worker has in service and what it refused, with the reason: for operators, scope `admin`."""

from __future__ import annotations

import os
from typing import Any

from bentos.models.deployment import Scoring
from bentos.scoring.engine import Engine


def status(engine: Engine, tokens_error: str | None) -> dict[str, Any]:
    """Of the worker that answers; `refused` is null or names the file and what is wrong with it."""
    scorer = engine.scorer
    line, rules = scorer.scores.room.current, scorer.rules
    return {
        "worker": os.getpid(),
        "models": {
            "champion": _version(line.champion),
            "challenger": _version(line.challenger),
            "share": line.experiment.share if line.challenger else None,
            "shadow": [scoring.version for scoring in line.shadows],
            "refused": scorer.scores.room.error,
        },
        "rules": {
            "version": rules.current.version,
            "names": [rule.name for rule in rules.current.rules],
            "demoted": sorted(rules.breaker.open_rules),
            "refused": rules.error,
        },
        "registry": {"refused": scorer.reader.plans.error},
        "tokens": {"refused": tokens_error},
        "keys": {"signs": scorer.keys.signing, "refused": scorer.keys.error},
        "breakers": {"redis": scorer.reader.breaker.state, "model": scorer.scores.breaker.state},
        "waiting": {
            "transactions": engine.in_flight,
            "decisions_in_memory": scorer.log.held,
            "events": sum(sink.spooled for sink in scorer.sinks),
        },
    }


def _version(scoring: Scoring | None) -> str | None:
    return scoring.version if scoring is not None else None
