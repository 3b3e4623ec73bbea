"""First transactions: what was decided on customers, cards, merchants and devices that nobody had seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from fraud.features.entities import ENTITIES
from monitoring import page

#: Entities that may be new, in the order of the report.
WHO: Final = ("customer", "card", "merchant", "device")


@dataclass(frozen=True, slots=True)
class FirstTransactions:
    """Decisions on an entity's first known transaction, beside those on known ones.

    Shares are of rows that were not approved, None without rows; `reference` is the share of first ones in
    the training reference.
    """

    entity: str
    rows: int
    share_of_rows: float
    stopped: float | None
    stopped_known: float | None
    reference: float | None


def first_transactions(reference: pd.DataFrame, current: pd.DataFrame) -> list[FirstTransactions]:
    """Figures of each entity that the decisions name; empty where they hold no decision."""
    if "decision" not in current:
        return []
    found = []
    for entity in ENTITIES:
        column = f"{entity.name}_seconds_since_first_txn"
        if entity.name not in WHO or column not in current or entity.key not in current:
            continue
        named = current[current[entity.key].notna() & (current[entity.key] != "")]
        first = named[column].isna()
        if "feature_status" in named:
            # A state that timed out is not one that nobody has.
            view = entity.velocity_view
            first &= np.array([_of(status, view) == "missing" for status in named["feature_status"]], bool)
        if len(named):
            then = reference[reference[column].isna()] if column in reference else reference[:0]
            found.append(
                FirstTransactions(
                    entity.name, int(first.sum()), float(first.mean()), _stopped(named[first]),
                    _stopped(named[~first]),
                    _stopped(then) if entity.name in ("customer", "card", "merchant") else None,
                )
            )  # fmt: skip
    return found


def _of(status: Any, view: str) -> str | None:
    if status is None or isinstance(status, float):
        return None
    return dict(status if not isinstance(status, Mapping) else status.items()).get(view)


def _stopped(rows: pd.DataFrame) -> float | None:
    return float((rows["decision"] != "APPROVE").mean()) if len(rows) and "decision" in rows else None


def section(found: list[FirstTransactions]) -> str:
    """The report's table."""
    head = [
        "First transaction of a",
        "decisions",
        "share",
        "stopped",
        "stopped when known",
        "in the reference",
    ]
    rows = [
        [
            each.entity, f"{each.rows:,}", f"{each.share_of_rows:.2%}", _share(each.stopped),
            _share(each.stopped_known), _share(each.reference),
        ]
        for each in found
    ]  # fmt: skip
    return page.table(head, rows, numeric=(1, 2, 3, 4, 5))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"
