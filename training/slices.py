"""The same figures for parts of the rows, so that a good mean hides no bad corner."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraud.features.entities import ENTITIES
from training import metrics
from training.metrics import Floats, NoFraudError
from training.rows import Rows

#: Upper ends of the amount bands, reference cents.
AMOUNT_BANDS = (1_000, 5_000, 10_000, 25_000, 100_000)
#: Values of a category shown one by one, by number of rows; the rest are "other".
MOST_VALUES = 12
#: Entities that may be new, by their first known transaction (the velocity state's horizon is 30 days).
NEWCOMERS = ("customer", "card", "merchant", "device")
NEW_SECONDS = 7 * 86_400.0
#: Slices with fewer frauds are counted, not judged.
FEWEST_FRAUDS = 5
WEEK_US = 7 * 86_400_000_000


def slices(rows: Rows, score: Floats, threshold: float) -> dict[str, list[dict[str, Any]]]:
    """Per grouping, one entry per value: rows, frauds, figures, and alerts at `threshold`."""
    found = {name: _by(rows, score, threshold, values) for name, values in groupings(rows).items()}
    if "amount" in found:
        bands = _bands()
        found["amount"].sort(key=lambda entry: bands.index(entry["value"]))
    return {name: entries for name, entries in found.items() if len(entries) > 1}


def groupings(rows: Rows) -> dict[str, NDArray[Any]]:
    """A text value per row for every grouping that the rows allow."""
    groups: dict[str, NDArray[Any]] = {
        name: _top(rows.described[name])
        for name in ("merchant_category", "country", "channel", "currency", "fraud_type")
        if name in rows.described
    }
    if "amount_reference" in rows.described:
        place = np.searchsorted(np.array(AMOUNT_BANDS), rows.amount, side="right")
        groups["amount"] = np.asarray(_bands(), dtype=object)[place]
    for name in NEWCOMERS:
        if f"{name}_seconds_since_first_txn" in rows.names:
            groups[name] = _newness(rows, name)
    if "customer_new_country" in rows.names:
        new = rows.features[:, rows.names.index("customer_new_country")]
        groups["travel"] = np.select(
            [new == 1, new == 0], ["first purchase in the country", "known country"], "not known"
        ).astype(object)
    return groups


def first_transactions(rows: Rows, name: str = "customer") -> NDArray[np.bool_]:
    """Rows of an entity that nobody has seen in 30 days: named, and without a state."""
    seconds = rows.features[:, rows.names.index(f"{name}_seconds_since_first_txn")]
    return np.isnan(seconds) & _named(rows, name)


def _named(rows: Rows, name: str) -> NDArray[np.bool_]:
    key = next(entity.key for entity in ENTITIES if entity.name == name)
    values = rows.described.get(key)
    return np.ones(len(rows), dtype=bool) if values is None else np.asarray(values != "")


def _newness(rows: Rows, name: str) -> NDArray[Any]:
    """How new an entity is: its first transaction, days old, known, or not named."""
    seconds = rows.features[:, rows.names.index(f"{name}_seconds_since_first_txn")]
    return np.select(
        [~_named(rows, name), np.isnan(seconds), seconds < NEW_SECONDS],
        ["(none)", "first transaction", "new (under 7 days)"], "known",
    ).astype(object)  # fmt: skip


def _bands() -> list[str]:
    """Names of the amount bands in reference units, lowest first."""
    bounds = [0, *AMOUNT_BANDS]
    names = [f"{low // 100}-{high // 100}" for low, high in zip(bounds, AMOUNT_BANDS, strict=False)]
    return [*names, f"over {AMOUNT_BANDS[-1] // 100}"]


def weekly(rows: Rows, score: Floats, threshold: float) -> list[dict[str, Any]]:
    """The figures week by week of event time (weeks counted from the first row)."""
    week = (rows.event_us - rows.event_us[0]) // WEEK_US
    starts = [
        str(np.datetime64(int(rows.event_us[0] + n * WEEK_US), "us"))[:10] for n in range(int(week[-1]) + 1)
    ]
    return _by(rows, score, threshold, np.asarray(starts, dtype=object)[week], ordered=True)


def _top(values: NDArray[Any]) -> NDArray[Any]:
    names, code, count = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    keep = np.argsort(-count, kind="stable")[:MOST_VALUES]
    shown = np.full(len(names), "other", dtype=object)
    shown[keep] = [name or "(none)" for name in names[keep].tolist()]
    return np.asarray(shown[code])


def _by(
    rows: Rows, score: Floats, threshold: float, values: NDArray[Any], *, ordered: bool = False
) -> list[dict[str, Any]]:
    entries = []
    for value in sorted(set(values.tolist())):
        mask = values == value
        label, part = rows.label[mask], score[mask]
        frauds = int(label.sum())
        weight = np.ones(len(label)) if rows.weight is None else rows.weight[mask]
        entry: dict[str, Any] = {
            "value": str(value),
            "rows": int(mask.sum()),
            "frauds": frauds,
            "fraud_rate": frauds / float(weight.sum()),
            "avg_prediction": float(np.average(part, weights=weight)),
            "flagged": float(np.average(part >= threshold, weights=weight)),
            "recall": float((part[label > 0] >= threshold).mean()) if frauds else None,
        }
        if frauds >= FEWEST_FRAUDS:
            try:
                ranking = metrics.rank(label, part, weight)
                entry["auc"] = metrics.auc(ranking)
                entry["average_precision"] = metrics.average_precision(ranking)
            except NoFraudError:  # every row of the slice is a fraud
                entry["auc"] = entry["average_precision"] = None
        else:
            entry["auc"] = entry["average_precision"] = None
        entries.append(entry)
    return entries if ordered else sorted(entries, key=lambda entry: -int(entry["rows"]))
