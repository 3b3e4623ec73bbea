"""First transactions in the drift report: who counts as new, and what was decided on them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from monitoring.drift.strangers import first_transactions, section


def test_first_transactions_are_counted_by_what_nobody_had_seen_and_not_by_what_timed_out() -> None:
    nan = np.nan
    current = pd.DataFrame(
        {
            "customer_id": ["a", "b", "c", "d"],
            "device_id": [None, "x", None, "y"],
            "customer_seconds_since_first_txn": [nan, nan, 50.0, 60.0],
            "device_seconds_since_first_txn": [nan, nan, nan, 4.0],
            "decision": ["REVIEW", "REVIEW", "APPROVE", "BLOCK"],
            "feature_status": [
                [("customer_velocity", state), ("device_velocity", "missing")]
                for state in ("missing", "timeout", "fresh", "fresh")
            ],
        }
    )
    reference = pd.DataFrame(
        {"customer_seconds_since_first_txn": [nan, nan, 3.0], "decision": ["APPROVE", "REVIEW", "APPROVE"]}
    )
    customer, device = first_transactions(reference, current)
    assert (customer.entity, customer.rows, customer.share_of_rows) == ("customer", 1, 0.25)
    assert (customer.stopped, customer.stopped_known, customer.reference) == (1.0, 2 / 3, 0.5)
    # Of two named devices one is new, and it is the named ones that count.
    assert (device.entity, device.rows, device.stopped, device.reference) == ("device", 1, 1.0, None)
    page = section([customer, device])
    assert "66.67%" in page and "customer" in page
    assert first_transactions(reference, current.drop(columns="decision")) == []
