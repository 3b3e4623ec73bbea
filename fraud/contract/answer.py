"""What the service answers for one transaction."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Decision = Literal["APPROVE", "REVIEW", "BLOCK"]
FeatureStatus = Literal["fresh", "stale", "missing", "timeout"]


class Answer(Struct, frozen=True):
    """The decision on one transaction.

    `risk_factors` are its reasons in words, strongest first, `reason_codes` their codes, once each.

    `fraud_score` is the model's calibrated probability, or null when no model could score.
    `feature_status` maps each feature view to fresh, stale, missing or timeout; `degraded`
    lists why the answer is not the best the platform can give, and is empty otherwise.
    """

    transaction_id: str
    fraud_score: float | None
    decision: Decision
    risk_factors: list[str]
    rules: list[str]
    model_version: str | None
    variant: str
    feature_status: dict[str, FeatureStatus]
    degraded: list[str]
    latency_ms: float
    reason_codes: list[str] = []
