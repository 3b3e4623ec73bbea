"""What is known of an entity's frauds: counts, matured rates, and how long ago they were.

A label counts from the moment it was known. Rates look at transactions whose labels have ripened: windows end
at the label maturity before the cut.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from feature_repo.aggregates.frame import Floats, Frame, cuts_of
from feature_repo.aggregates.grid import CUTS_PER_DAY, NOTHING, Ints, largest
from fraud.declared.figures import Figure

#: A fraud risk is taken as if so many more genuine transactions had been seen.
PRIOR: Final = 10


def fraud_count(frame: Frame, figure: Figure) -> Floats:
    """Frauds that became known in the window."""
    return frame.frauds(cuts_of(figure.window_ms)).astype(np.float64)


def fraud_rate(frame: Frame, figure: Figure) -> Floats:
    """Share of the window's ripened transactions that were known to be fraud."""
    span = cuts_of(figure.window_ms)
    mature, confirmed = frame.mature(span), frame.confirmed(span)
    return np.where(mature > 0, confirmed / mature, np.nan)


def fraud_risk(frame: Frame, figure: Figure) -> Floats:
    """`fraud_rate` as if `PRIOR` more genuine transactions had been seen."""
    span = cuts_of(figure.window_ms)
    return frame.confirmed(span) / (frame.mature(span) + PRIOR)


def days_genuine_minus_fraud(frame: Frame, figure: Figure) -> Floats:
    """Days since the newest genuine transaction less days since the newest known fraud."""
    longest = frame.request.maturity + cuts_of(figure.window_ms)
    moves, reports = frame.moves, frame.reports
    cuts = np.arange(frame.grid.first, frame.grid.last + 1)[None, :]
    # Once reported, never again an example of a genuine one, even if the report is withdrawn.
    suspect = _first_told(moves.tx, reports.tx, frame.told)
    genuine = largest(
        moves.row,
        *frame.grid.visible(frame.ripe, np.minimum(moves.bucket + longest, suspect - 1)),
        moves.bucket,
        frame.shape,
    )
    newest = largest(
        reports.row,
        *frame.grid.visible(frame.told, np.minimum(reports.bucket + longest, reports.until - 1)),
        reports.bucket,
        frame.shape,
    )
    lead = newest - np.maximum(genuine, cuts - longest)  # without a genuine one, as if at the edge
    return np.where(newest == NOTHING, np.nan, lead / CUTS_PER_DAY)


def days_since_first_fraud(frame: Frame, figure: Figure) -> Floats:
    """Days since the first known of the window's frauds."""
    recent, reports = cuts_of(figure.window_ms), frame.reports
    cuts = np.arange(frame.grid.first, frame.grid.last + 1)[None, :]
    first = largest(
        reports.row,
        *frame.grid.visible(frame.told, np.minimum(reports.bucket + recent, reports.until - 1)),
        -reports.bucket,
        frame.shape,
    )
    return np.where(first == NOTHING, np.nan, (cuts + first) / CUTS_PER_DAY)


def _first_told(tx: Ints, reported: Ints, told: Ints) -> Ints:
    """For each of `tx`, the first of the cuts `told` of its reports; far ahead without any."""
    order = np.lexsort((told, reported))
    known, first = np.unique(reported[order], return_index=True)
    result = np.full(tx.size, np.iinfo(np.int64).max, dtype=np.int64)
    if known.size:
        place = np.minimum(np.searchsorted(known, tx), known.size - 1)
        result = np.where(known[place] == tx, told[order][first[place]], result)
    return result


FUNCTIONS: Final = {
    "fraud_count": fraud_count,
    "fraud_rate": fraud_rate,
    "fraud_risk": fraud_risk,
    "days_genuine_minus_fraud": days_genuine_minus_fraud,
    "days_since_first_fraud": days_since_first_fraud,
}
