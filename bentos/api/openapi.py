"""The OpenAPI document of the API, from which clients are generated: `/docs.json`.

BentoML writes one of its own from the typed methods, but knows neither that a score may be null, nor the
refusals, nor who may call; this one is made of the same models (`bentos.api.api_models`) and says all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bentos.api.api_models import (
    ErrorAnswer,
    LabelAnswer,
    LabelRequest,
    OutcomeRequest,
    ScoreAnswer,
    ScoreRequest,
)
from bentos.api.edge import BULK_PATH, SCORE_PATH
from bentos.scoring.engine import LARGEST_BULK_ITEMS

_SCHEMAS: Final = "#/components/schemas/"
_JSON: Final = "application/json"


class Operation(NamedTuple):
    """What a path does: its name for clients, whom it takes, and what it answers under which status."""

    name: str
    summary: str
    tag: str
    request: Mapping[str, Any]
    answer: Mapping[str, Any]
    status: int = 200
    also: tuple[int, ...] = ()


def _schema(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS + model.__name__}


def _many(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": LARGEST_BULK_ITEMS}


_LABEL: Final = _schema(LabelRequest)
_OUTCOME: Final = _schema(OutcomeRequest)
OPERATIONS: Final[dict[str, Operation]] = {
    SCORE_PATH: Operation(
        "score", "Decide one payment", "payments", _schema(ScoreRequest), _schema(ScoreAnswer), also=(409,)
    ),
    BULK_PATH: Operation(
        "score_batch", "Decide up to 1,024 payments; each gets its own answer or its own error", "payments",
        _many(_schema(ScoreRequest)), _many({"anyOf": [_schema(ScoreAnswer), _schema(ErrorAnswer)]}),
    ),
    "/v1/labels": Operation(
        "report_labels", "Report chargebacks or analysts' verdicts; kept once it is answered", "outcomes",
        {"anyOf": [_LABEL, _many(_LABEL)]}, _schema(LabelAnswer), status=202,
    ),
    "/v1/outcomes": Operation(
        "report_outcomes", "Report what became of payments; kept once it is answered", "outcomes",
        {"anyOf": [_OUTCOME, _many(_OUTCOME)]}, _schema(LabelAnswer), status=202,
    ),
    "/v1/explain": Operation(
        "explain", "Exact SHAP values of one payment; decides and logs nothing", "payments",
        _schema(ScoreRequest), {"type": "object", "additionalProperties": True},
    ),
}  # fmt: skip
_EXPLAIN_DECISION: Final = Operation(
    "explain_decision", "Explain a decision as it was made, from the log", "payments",
    {}, {"type": "object", "additionalProperties": True}, also=(404,),
)  # fmt: skip
_MODELS: Final = (ScoreRequest, ScoreAnswer, LabelRequest, OutcomeRequest, LabelAnswer, ErrorAnswer)
#: Refusals that every operation may give, in words; what to do on each is in docs/clients.md.
_REFUSALS: Final = {
    400: "Not JSON, or not HTTP that is taken: mend the client",
    401: "No token, or an unknown one",
    403: "The token lacks the scope",
    404: "The log holds no decision on it",
    409: "Another body was decided under this id: a new payment takes a new id",
    413: "The body is too large",
    415: "The content type is not application/json",
    422: "A field is wrong: `field` and `reason` say which and how it should be",
    429: "Faster than the client's rate: again after `Retry-After`",
    500: "An error of the service: again once",
    503: "Busy or starting: again after `Retry-After`",
}
_SOMETIMES: Final = frozenset({404, 409})


@cache
def document() -> bytes:
    """The document, as JSON."""
    _, made = models_json_schema(
        [(model, "serialization" if model is ScoreAnswer else "validation") for model in _MODELS],
        ref_template=_SCHEMAS + "{model}",
    )
    content = {
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate",
            "version": "1",
            "description": "Decides card payments. The same transaction id and payment get the same answer "
            "for 24 hours, however often they are sent: retry without fear, under the same id.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "payments"}, {"name": "outcomes"}, {"name": "operations"}],
        "security": [{"token": []}, {}],
        "paths": _paths(),
        "components": {
            "schemas": made["$defs"],
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A client's token; without a tokens file local callers need none.",
                }
            },
        },
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {path: {"post": _operation(each)} for path, each in OPERATIONS.items()}
    of_log = _operation(_EXPLAIN_DECISION)
    del of_log["requestBody"]
    name = {"type": "string", "minLength": 1, "maxLength": 64}
    of_log["parameters"] = [{"name": "transaction_id", "in": "query", "required": True, "schema": name}]
    paths["/v1/explain"]["get"] = of_log
    return paths | _PROBES


def _operation(each: Operation) -> dict[str, Any]:
    answers = {str(each.status): {"description": "Done", "content": {_JSON: {"schema": each.answer}}}}
    for status, words in _REFUSALS.items():
        if status in _SOMETIMES and status not in each.also:
            continue
        answers[str(status)] = {
            "description": words,
            "content": {_JSON: {"schema": _schema(ErrorAnswer)}},
        }
        if status in (429, 503):
            answers[str(status)]["headers"] = {
                "Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}
            }
    return {
        "operationId": each.name,
        "summary": each.summary,
        "tags": [each.tag],
        "requestBody": {"required": True, "content": {_JSON: {"schema": each.request}}},
        "responses": answers,
    }


_PROBES: Final = {
    path: {
        "get": {
            "operationId": name,
            "summary": words,
            "tags": ["operations"],
            "security": [],
            "responses": {"200": {"description": "Yes"}, "503": {"description": "Not yet"}},
        }
    }
    for path, name, words in (
        ("/livez", "live", "Whether the process answers at all"),
        ("/readyz", "ready", "Whether payments can be decided"),
    )
}
