"""Which label counts: the newest verdict of the strongest source, for every reader alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.labels import STRENGTH, latest_labels

START = datetime(2026, 3, 1, tzinfo=UTC)

Report = tuple[str, int, bool, str]


def table(reports: list[Report]) -> pa.Table:
    return pa.table(
        {
            "transaction_id": pa.array([report[0] for report in reports], pa.string()),
            "created_timestamp": pa.array(
                [START + timedelta(hours=report[1]) for report in reports], pa.timestamp("us", "UTC")
            ),
            "is_fraud": pa.array([report[2] for report in reports], pa.bool_()),
            "source": pa.array([report[3] for report in reports], pa.string()),
        }
    )


def verdict(reports: list[Report]) -> bool:
    (row,) = latest_labels(table(reports)).to_pylist()
    return bool(row["is_fraud"])


@pytest.mark.finding("M3", "medium", "one analyst's word undid a chargeback, and so did any label client's")
@pytest.mark.parametrize(
    ("reports", "fraud"),
    [
        ([("t", 0, True, "chargeback"), ("t", 5, False, "analyst")], True),
        ([("t", 0, True, "chargeback"), ("t", 5, False, "customer"), ("t", 6, False, "automatic")], True),
        ([("t", 0, True, "chargeback"), ("t", 5, False, "issuer")], False),
        ([("t", 0, False, "issuer"), ("t", 5, True, "chargeback")], True),
        ([("t", 0, False, "analyst"), ("t", 5, True, "customer")], False),
        ([("t", 0, False, "analyst"), ("t", 5, True, "analyst")], True),
        ([("t", 5, True, "analyst"), ("t", 0, False, "chargeback")], False),
        ([("t", 0, False, "analyst"), ("t", 0, True, "analyst")], True),
        ([("t", 0, True, "analyst"), ("t", 0, False, "chargeback")], False),
        ([("t", 0, True, "import"), ("t", 5, False, "what is this")], True),
    ],
)
def test_a_weaker_source_does_not_overrule_a_stronger_one(reports: list[Report], fraud: bool) -> None:
    assert verdict(reports) is fraud
    assert verdict(reports[::-1]) is fraud


def test_no_labels_are_no_error() -> None:
    assert latest_labels(table([])).num_rows == 0


reports = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.integers(0, 4), st.booleans(), st.sampled_from([*STRENGTH, "unheard of"])
    ),
    max_size=8,
)


@given(given_reports=reports)
def test_every_transaction_has_the_label_that_a_slow_search_finds(given_reports: list[Report]) -> None:
    found = {
        row["transaction_id"]: row["is_fraud"] for row in latest_labels(table(given_reports)).to_pylist()
    }
    expected = {}
    for name in {report[0] for report in given_reports}:
        mine = [report for report in given_reports if report[0] == name]
        expected[name] = max(mine, key=lambda report: (STRENGTH.get(report[3], 0), report[1], report[2]))[2]
    assert found == expected
