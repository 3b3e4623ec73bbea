"""The contract as pydantic models: OpenAPI, BentoML clients, and the bulk route's own codec."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, cast

from _bentoml_sdk.io_models import IORootModel
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from bentos.api.admitted import require_admitted
from bentos.api.edge import split_bulk
from fraud.contract.fields import Channel


class ScoreRequest(BaseModel):
    """One card transaction; `fraud.contract.transaction.Transaction` is its definition.

    Optional fields may be absent, null or empty, which mean the same. Text holds no control characters.
    """

    model_config = ConfigDict(extra="forbid")

    transaction_id: str = Field(min_length=1, max_length=64)
    event_time: datetime = Field(description="RFC 3339 with an offset")
    customer_id: str = Field(min_length=1, max_length=64)
    card_id: str = Field(min_length=1, max_length=64, description="a token, never a card number")
    merchant_id: str = Field(min_length=1, max_length=64)
    amount: Decimal = Field(ge=0, description="exact, with no more decimals than the currency has")
    currency: str = Field(min_length=3, max_length=3, description="ISO 4217")
    channel: Channel
    terminal_id: str | None = Field(None, max_length=64)
    device_id: str | None = Field(None, max_length=64)
    ip: str | None = Field(None, max_length=64, description="one IPv4 or IPv6 address, or a token of one")
    merchant_category: (
        Annotated[str, Field(max_length=64)] | Annotated[int, Field(ge=0, le=999_999)] | None
    ) = Field(None, description="ISO 18245, such as 5411; a number is read as its text")
    country: str | None = Field(None, pattern="^([A-Z]{2})?$", description="ISO 3166 alpha-2")
    latitude: float | None = Field(None, ge=-90, le=90)
    longitude: float | None = Field(None, ge=-180, le=180)
    attributes: dict[str, str | bool | float | None] | None = Field(
        None, description="fields of a team's own, as its declarations name them"
    )


class ScoreAnswer(BaseModel):
    """The decision on one transaction; `fraud.contract.answer.Answer` is its definition."""

    transaction_id: str
    fraud_score: float | None
    decision: Literal["APPROVE", "REVIEW", "BLOCK"]
    risk_factors: list[str]
    rules: list[str]
    model_version: str | None
    variant: str
    feature_status: dict[str, Literal["fresh", "stale", "missing", "timeout"]]
    degraded: list[str]
    latency_ms: float
    reason_codes: list[str]


class LabelRequest(BaseModel):
    """One report on a transaction."""

    model_config = ConfigDict(extra="forbid")

    transaction_id: str = Field(min_length=1, max_length=64)
    event_time: datetime = Field(description="the transaction's event time, with an offset")
    is_fraud: bool
    source: Literal["chargeback", "issuer", "analyst", "customer", "automatic"]
    known_at: datetime | None = Field(
        None, description="when it became known; the receiver's clock if absent"
    )
    reason: str | None = Field(None, description="the sender's code, such as a network's of a chargeback")


class OutcomeRequest(BaseModel):
    """What became of a payment."""

    model_config = ConfigDict(extra="forbid")

    transaction_id: str = Field(min_length=1, max_length=64)
    kind: Literal["declined", "reversed", "refunded", "captured", "incremental", "disputed", "dispute_won"]
    outcome_id: str | None = Field(None, description="tells outcomes of one kind and transaction apart")
    amount: str | None = Field(None, description="a decimal number; absent for the whole")
    currency: str | None = Field(None, description="ISO 4217, beside an amount")
    reason: str | None = Field(None, description="the sender's code")
    event_time: datetime | None = Field(None, description="the transaction's event time, with an offset")
    known_at: datetime | None = Field(
        None, description="when it became known; the receiver's clock if absent"
    )


class LabelAnswer(BaseModel):
    """How many labels were kept."""

    accepted: int


class ErrorDetail(BaseModel):
    """What is wrong: the field, and what it should be."""

    field: str
    reason: str


class ErrorAnswer(BaseModel):
    """A refusal."""

    error: ErrorDetail


class BulkRequest(IORootModel[list[ScoreRequest]]):  # type: ignore[misc]
    """Up to 1,024 transactions. Decoded by the contract, so that one bad item fails alone."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> BulkRequest:
        """Each transaction's JSON, with who sends it.

        Here and not in the method, which runs in the batcher's task: that knows no request.
        """
        caller = require_admitted()
        items = [(bytes(raw), caller) for raw in split_bulk(await request.body())]
        return cast("BulkRequest", cls.model_construct(root=items))


BulkRequest.__root_input__ = True


class BulkAnswer(IORootModel[list[ScoreAnswer | ErrorAnswer]]):  # type: ignore[misc]
    """Per transaction its answer or its error, in the order of the request."""

    @classmethod
    async def to_http_response(cls, obj: list[bytes], serde: Any) -> Response:
        """The items are JSON already."""
        return Response(b"[" + b",".join(obj) + b"]", media_type="application/json")
