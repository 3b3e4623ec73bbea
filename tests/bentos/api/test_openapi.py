"""Schemathesis over the published OpenAPI document: what fits it, or nearly, gets no 5xx."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from tests.bentos.running import Service


@pytest.fixture(scope="module")
def document(service: Service) -> Any:
    return schemathesis.openapi.from_url(service.url + "/docs.json")


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(
    "path", ["/v1/score", "/v1/score/batch", "/v1/labels", "/v1/outcomes", "/v1/explain"]
)
def test_nothing_that_the_document_allows_or_nearly_allows_breaks_the_service(
    document: Any, path: str, mode: GenerationMode
) -> None:
    statuses: Counter[int] = Counter()

    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=document[path]["POST"].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        response = case.call(timeout=10)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=(not_a_server_error,))
        assert response.status_code < 500
        assert "Traceback" not in response.text

    check()
    assert sum(statuses.values()) >= 10
    if mode is GenerationMode.POSITIVE:
        assert statuses.keys() & {200, 202, 409, 422}
