"""Every gate as a table of checks.

Columns that begin with an underscore are derived in `frames`; facts are computed in `facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

from fraud.contract.fields import CHANNELS
from fraud.contract.money import MINOR_DIGITS, REFERENCE_CAP
from fraud.contract.transaction import LARGEST_AMOUNT
from fraud.declared.figures import BatchView
from fraud.features.entities import ENTITY_BY_NAME, Entity
from fraud.features.feature_list import VECTOR
from monitoring.gates.checks import Check, Fault, Severity
from stores.declared import batch_view_in
from stores.labels import STRENGTH

FUTURE_SECONDS: Final = 300
LABEL_SOURCES: Final = tuple(STRENGTH)
DECISIONS: Final = ("APPROVE", "REVIEW", "BLOCK")

_UPSTREAM: Final = "ask the feed's owner for a corrected batch, then run the step again; nothing was written"
_ZONE: Final = (
    "the feed's clock or its offset changed: correct the mapping's time zone and import the batch again"
)
_UNITS: Final = "the feed changed its unit or currency: correct the mapping's unit and import the batch again"
_AGAIN: Final = "write the file again from its source; the step did not read any of it"
_CLOCK: Final = "compare the sender's clock with UTC; hold the batch until its times have passed"
_REBUILD: Final = "rebuild this cut from the lake; Redis still holds the previous one"
_TOKEN: Final = "stop the feed, delete the batch under your incident procedure and have it sent with tokens"


def _not_null(columns: Sequence[str], cure: str = _UPSTREAM) -> list[Check]:
    return [Check("nulls", "ExpectColumnValuesToNotBeNull", {"column": name}, cure) for name in columns]


def _unique(columns: Sequence[str], cure: str, severity: Severity = "block") -> Check:
    if len(columns) == 1:
        return Check("duplicates", "ExpectColumnValuesToBeUnique", {"column": columns[0]}, cure, severity)
    return Check(
        "duplicates", "ExpectCompoundColumnsToBeUnique", {"column_list": list(columns)}, cure, severity
    )


def _between(
    fault: Fault, column: str, low: float | None, high: float | None, cure: str, severity: Severity = "block"
) -> Check:
    arguments: dict[str, Any] = {"column": column, "min_value": low, "max_value": high}
    return Check(fault, "ExpectColumnValuesToBeBetween", arguments, cure, severity)


def _fact(
    fault: Fault, name: str, low: float | None, high: float | None, cure: str, severity: Severity = "block"
) -> Check:
    arguments: dict[str, Any] = {"column": name, "min_value": low, "max_value": high}
    return Check(fault, "ExpectColumnValuesToBeBetween", arguments, cure, severity, facts=True)


def _row_counts(cure: str) -> list[Check]:
    return [
        _fact("no data", "rows", 1, None, cure),
        _fact("row count", "rows_ratio", 0.2, 5, "compare with the previous runs before going on: " + cure),
        _fact(
            "row count", "rows_ratio", 0.6, 1.7, "unusual, not impossible: look at the feed's volume", "warn"
        ),
    ]


def _raw() -> list[Check]:
    required = (
        "transaction_id", "event_timestamp", "created_timestamp", "customer_id", "card_id", "merchant_id",
        "amount_minor", "currency", "amount_reference", "channel", "ingest_seq",
    )  # fmt: skip
    return [
        *_not_null(required),
        _unique(["transaction_id"], "the batch was sent or appended twice: remove the second copy"),
        _between("impossible values", "amount_minor", 0, LARGEST_AMOUNT, _UPSTREAM),
        _between("impossible values", "amount_reference", 0, REFERENCE_CAP, _UPSTREAM),
        _between("impossible values", "latitude", -90, 90, _UPSTREAM),
        _between("impossible values", "longitude", -180, 180, _UPSTREAM),
        Check("impossible values", "ExpectColumnValuesToBeInSet", {"column": "currency", "value_set": sorted(MINOR_DIGITS)}, _UPSTREAM),
        Check("impossible values", "ExpectColumnValuesToBeInSet", {"column": "channel", "value_set": list(CHANNELS)}, _UPSTREAM),
        Check("impossible values", "ExpectColumnValuesToMatchRegex", {"column": "country", "regex": "^[A-Z]{2}$"}, _UPSTREAM),
        _between("shifted units", "_reference_off", 0, 0, _UNITS),
        _between("future events", "_ahead_seconds", None, FUTURE_SECONDS, _CLOCK),
        _between("future events", "_after_as_of_seconds", None, FUTURE_SECONDS, _CLOCK),
        _between("wrong partition", "_partition_days_off", 0, 0, _ZONE),
        *_row_counts(_UPSTREAM),
        _fact("missing hours", "missing_hours", 0, 0, "have the feed send the hours that are missing, then run the step again"),
        _fact("wrong time zone", "hour_shift", 0, 0, _ZONE),
        _fact("shifted units", "amount_ratio", None, 5, _UNITS),
        _fact("shifted units", "amount_ratio", None, 1.6, "amounts moved more than usual: look at the largest currency", "warn"),
        _fact("card numbers", "card_numbers", 0, 0, _TOKEN),
        _fact("missing optional fields", "optional_missing_change", None, 0.2, "an optional field went missing: the model sees it as missing, ask its feed", "warn"),
    ]  # fmt: skip


def _labels() -> list[Check]:
    return [
        *_not_null(("transaction_id", "event_timestamp", "created_timestamp", "is_fraud", "source")),
        _unique(["transaction_id", "created_timestamp", "source"], "the same report was imported twice: remove the second copy"),
        Check("impossible values", "ExpectColumnValuesToBeInSet", {"column": "source", "value_set": list(LABEL_SOURCES)}, _UPSTREAM),
        _between("leak", "_ahead_seconds", None, 0, "a label known before its transaction would leak: correct its known-at time"),
        _between("future events", "_after_as_of_seconds", None, FUTURE_SECONDS, _CLOCK),
        *_row_counts(_UPSTREAM),
    ]  # fmt: skip


#: Functions of batch views whose values lie between bounds, whatever they are of.
_BOUNDS: Final[dict[str, tuple[float | None, float | None]]] = {
    **dict.fromkeys(("fraud_rate", "share", "category_share", "fraud_risk"), (0, 1)),
    "usual_latitude": (-90, 90),
    "usual_longitude": (-180, 180),
    **dict.fromkeys(
        (
            "count",
            "count_if",
            "std",
            "count_distinct",
            "fraud_count",
            "days_since_first_fraud",
            "category_std",
        ),
        (0, None),
    ),
}


def profile_suite(view: BatchView) -> list[Check]:
    """The checks of one batch view as of a cut before it is materialized."""
    counts = [
        each.name for each in sorted(view.figures, key=lambda one: one.window_ms) if each.function == "count"
    ]
    checks = [
        *_not_null((view.key, "event_timestamp", "created_timestamp", *counts[-1:]), _REBUILD),
        _unique([view.key, "event_timestamp"], _REBUILD),
        _between("leak", "_ahead_seconds", None, 0, "a profile visible before its cut would leak: " + _REBUILD),
        _fact("wrong partition", "cuts", 1, 1, "a cut's folder must hold that cut only: " + _REBUILD),
        *_row_counts(_REBUILD),
        _fact("shifted units", "amount_ratio", None, 3, "amounts jumped since the previous cut: gate the transactions, then " + _REBUILD),
    ]  # fmt: skip
    for each in view.figures:
        of_amounts = (
            each.function in ("sum", "mean", "min", "max", "category_mean") and each.column == "amount"
        )
        low, high = (0, None) if of_amounts else _BOUNDS.get(each.function, (None, None))
        if low is not None:
            checks.append(_between("impossible values", each.name, low, high, _REBUILD))
    checks += [
        Check(
            "impossible values", "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": longer, "column_B": shorter, "or_equal": True, "ignore_row_if": "either_value_is_missing"}, _REBUILD,
        )
        for shorter, longer in pairwise(counts)
    ]  # fmt: skip
    return checks


def velocity_suite(entity: Entity) -> list[Check]:
    """The checks of one entity's velocity log."""
    again = "rebuild the velocity log of this entity from lake/transactions"
    return [
        *_not_null((entity.key, "event_timestamp", "created_timestamp", entity.state_feature), again),
        _unique([entity.key, "event_timestamp"], "two states with one version: " + again),
        _between("leak", "_known_off_seconds", 0, 0, "a state must be known exactly at its version: " + again),
        _between("unreadable state", "_state_unreadable", 0, 0, "states of another version or cut short: " + again),
        _between("future events", "_transaction_ahead_seconds", None, 0, "a state older than its transaction: " + again),
        *_row_counts(again),
    ]  # fmt: skip


def _training() -> list[Check]:
    again = "build the training set again; the join must give one row out for one row in"
    return [
        *_not_null(("transaction_id", "event_timestamp"), again),
        _unique(["transaction_id"], again),
        _between("future events", "_after_as_of_seconds", None, 0, "rows after the cut would leak: choose a later cut"),
        _fact("no data", "rows", 1, None, again),
        _fact("one class only", "frauds", 1, None, "no fraud is known in the window: widen it or wait for labels"),
        _fact("one class only", "fraud_share", None, 0.5, "more than half are frauds: the labels are inverted or filtered"),
        _fact("impossible values", "fraud_share", 0.0001, 0.2, "an unusual share of frauds: check the label policy", "warn"),
        _fact("wrong columns", "features_absent", 0, 0, "the set lacks features of the service: build it again"),
        _fact("missing optional fields", "features_empty_share", None, 0.6, "most features are empty: check that views were filled before the window", "warn"),
        _fact("leak", "best_single_auc", None, 0.999, "one feature alone tells every fraud: it knows the label"),
        _fact("row count", "rows_ratio", 0.2, 5, "compare with the previous sets before training", "warn"),
    ]  # fmt: skip


def _decisions() -> list[Check]:
    chain = "the log was edited or lost rows: keep the files, compare with a backup, tell the service's owner"
    return [
        *_not_null(("transaction_id", "event_timestamp", "decision"), chain),
        _unique(["transaction_id"], "a client repeats transactions without its idempotency key", "warn"),
        Check("impossible values", "ExpectColumnValuesToBeInSet", {"column": "decision", "value_set": list(DECISIONS)}, chain),
        _between("impossible values", "score", 0, 1, "stop the model: a score outside 0 to 1 means a broken file"),
        _between("impossible values", "latency_ms", 0, None, chain),
        _fact("no data", "rows", 1, None, "start the service and score something first"),
        _fact("wrong columns", "features_absent", 0, 0, "service and monitoring have different feature definitions"),
        _fact("degraded answers", "degraded_share", None, 0.5, "look at Redis and the model: most answers are fallbacks"),
        _fact("degraded answers", "degraded_share", None, 0.05, "look at the feature status of the service", "warn"),
        _fact("card numbers", "card_numbers", 0, 0, _TOKEN),
        _fact("broken chain", "chain_breaks", 0, 0, chain),
    ]  # fmt: skip


SUITES: Final[dict[str, Callable[[], list[Check]]]] = {
    "raw": _raw,
    "labels": _labels,
    "training": _training,
    "decisions": _decisions,
}
#: Gates of one entity's data.
OF_ENTITIES: Final = ("profiles", "velocity")
GATES: Final = ("raw", "labels", "profiles", "velocity", "training", "decisions")


def suite(gate: str, entity: str | None = None) -> list[Check]:
    """The checks of `gate`; velocity needs the entity's name, and profiles that or a batch view's."""
    if gate in SUITES:
        return SUITES[gate]()
    if entity is None:
        raise ValueError(f"the gate {gate} needs an entity: one of {', '.join(ENTITY_BY_NAME)}")
    return (
        profile_suite(batch_view_in(entity)) if gate == "profiles" else velocity_suite(ENTITY_BY_NAME[entity])
    )


#: Columns whose values name or locate somebody: shown only as a hash.
PERSONAL: Final = frozenset(
    {
        "transaction_id",
        "customer_id",
        "card_id",
        "merchant_id",
        "terminal_id",
        "device_id",
        "ip",
        "latitude",
        "longitude",
    }
)
FEATURES: Final = VECTOR
