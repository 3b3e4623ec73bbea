"""Whatever bytes arrive, the doors answer with a value or a refusal that repeats none of the input."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.api.edge import split_bulk
from bentos.base.problem import Problem, refused
from bentos.log.labels import Reporter, parse_labels
from fraud.contract.transaction import ContractError, parse_transaction
from tests.bentos.running import transaction_json

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_BYTES = st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode())


def _door(raw: bytes, secret: str | None = None) -> None:
    for parse in (parse_transaction, split_bulk, lambda body: parse_labels(body, NOW, Reporter("till"))):
        try:
            parse(raw)
        except ContractError as error:
            answer = refused(error)
        except Problem as problem:
            answer = problem
        else:
            continue
        assert 400 <= answer.status < 500
        if secret is not None:
            assert secret not in answer.json().decode()


@settings(max_examples=300, deadline=None)
@given(_BYTES)
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    _door(raw)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(transaction_json())), _JSON, st.binary(max_size=3))
def test_one_wild_field_is_parsed_or_refused(field: str, value: Any, tail: bytes) -> None:
    _door(json.dumps(transaction_json() | {field: value}).encode() + tail)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(transaction_json())))
def test_a_refusal_never_repeats_what_was_sent(field: str) -> None:
    secret = "zq-secret-zq" * 6
    _door(json.dumps(transaction_json() | {field: secret}).encode(), secret)
