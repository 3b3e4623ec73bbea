"""One shard of one entity: its transactions and fraud reports in, profile rows at every cut out.

Runs in Spark's Python workers on Arrow tables; pure numpy, no Spark, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.aggregates.grid import (
    CUTS_PER_DAY,
    HALF,
    LOW,
    NOTHING,
    Grid,
    Ints,
    deviation,
    distinct,
    largest,
    running,
)
from fraud.features.entities import PROFILE_DAYS, Entity
from fraud.features.profiles import AMOUNT_AGAINST, RISK_PRIOR, USUAL_PLACE

Floats = NDArray[np.float64]

#: Keys times cuts computed at once: bounds a worker's memory at a few hundred MB.
CELLS: Final = 1_000_000
_LONGEST: Final = max(PROFILE_DAYS)


#: In place of the cut that knows a report, of an outcome: what counted as spent before it, and after it.
TAKEN: Final = -1
LEFT: Final = -2


@dataclass(frozen=True, slots=True)
class Peers:
    """Thirty-day figures of all transactions and of each merchant category, by cut of the grid."""

    count: Ints
    category: dict[str, tuple[Ints, Ints, Ints, Ints]]


@dataclass(frozen=True, slots=True)
class Request:
    """What to compute: the cuts, how late labels ripen (in cuts) and who the peers are."""

    grid: Grid
    maturity: int
    peers: Peers


@dataclass(frozen=True, slots=True)
class _Rows:
    """Columns of a shard: transactions, or the fraud reports on them (`known`, `until`).

    `bucket` is the event's bucket, `seen` the first cut that knows the transaction, `known`
    the first that knows the report and `until` the first that knows the next word on it.
    """

    row: Ints
    bucket: Ints
    seen: Ints
    amount: Ints
    tx: Ints
    parties: tuple[Ints, ...]
    direction: tuple[Ints, ...]
    category: pa.Array
    known: Ints
    until: Ints

    def take(self, index: Any) -> _Rows:
        """The rows at `index`, integers or a mask."""
        places = np.flatnonzero(index) if index.dtype == bool else index
        return _Rows(
            self.row[places], self.bucket[places], self.seen[places], self.amount[places], self.tx[places],
            tuple([party[places] for party in self.parties]), tuple([one[places] for one in self.direction]),
            self.category.take(pa.array(places)),
            self.known[places], self.until[places],
        )  # fmt: skip


def profiles(
    entity: Entity, table: pa.Table, request: Request
) -> Iterator[tuple[pa.Array, NDArray[np.bool_], dict[str, Floats]]]:
    """For blocks of keys in order: the keys, who has a row at which cut, and every feature.

    The mask and each feature are (keys, cuts). A key has a row at a cut if anything of it lies
    in any window of that cut. Features without a value are NaN.
    """
    keys, rows = _columns(entity, table)
    step = max(1, CELLS // request.grid.size)
    order = np.argsort(rows.row, kind="stable")
    edges = np.searchsorted(rows.row[order], np.arange(0, len(keys) + step, step))
    for place, (low, high) in enumerate(pairwise(edges)):
        block = rows.take(order[low:high])
        block.row[:] -= place * step
        names = keys.slice(place * step, step)
        if len(names):
            yield names, *_block(entity, block, len(names), request)


def _columns(entity: Entity, table: pa.Table) -> tuple[pa.Array, _Rows]:
    """The shard's keys in order, and its rows without repeats of a transaction."""
    key = table.column("key").combine_chunks().cast(pa.string())
    keys = pc.unique(key).sort()
    names = ("bucket", "seen", "amount", "tx", "known", "until", *[f"party{i}" for i in range(2)])
    ints = {name: _ints(table.column(name)) for name in names}
    rows = _Rows(
        row=_ints(pc.index_in(key, keys)),
        bucket=ints["bucket"],
        seen=ints["seen"],
        amount=ints["amount"],
        tx=ints["tx"],
        parties=tuple([ints[f"party{i}"] for i in range(len(entity.counterparties))]),
        direction=tuple([_ints(table.column(name)) for name in "xyz"]) if entity.name == "customer" else (),
        category=table.column("category").combine_chunks(),
        known=ints["known"],
        until=ints["until"],
    )
    # A transaction delivered twice counts once, from when it was first known.
    order = np.lexsort((rows.until, rows.known, rows.seen, rows.tx))
    tx, known = rows.tx[order], rows.known[order]
    fresh = np.ones(order.size, dtype=bool)
    fresh[1:] = (tx[1:] != tx[:-1]) | (known[1:] != known[:-1])
    return keys, rows.take(order[fresh])


def _ints(column: pa.Array | pa.ChunkedArray) -> Ints:
    """A numeric column as int64, nulls as 0."""
    values: Ints = (
        column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        if isinstance(column, pa.Array)
        else column.cast(pa.int64()).fill_null(0).to_numpy()
    )
    return values


def _block(
    entity: Entity, rows: _Rows, height: int, request: Request
) -> tuple[NDArray[np.bool_], dict[str, Floats]]:
    grid, shape = request.grid, (height, request.grid.size)
    name = entity.name
    moves, reports = rows.take(rows.known == 0), rows.take(rows.known > 0)
    taken, left = rows.take(rows.known == TAKEN), rows.take(rows.known == LEFT)
    squares = moves.amount * moves.amount
    start = np.maximum(moves.bucket + 1, moves.seen)
    ripe = np.maximum(moves.bucket + 1 + request.maturity, moves.seen)
    told = np.maximum(reports.known, reports.seen)
    ripe_told = np.maximum(reports.bucket + 1 + request.maturity, told)
    parties = [_sorted_party(moves.row, party, start) for party in moves.parties]
    features: dict[str, Floats] = {}
    active = np.zeros(shape, dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        for days in PROFILE_DAYS:
            span = days * CUTS_PER_DAY
            low, high = grid.visible(start, moves.bucket + span)
            count = running(moves.row, low, high, 1, shape)
            total = running(moves.row, low, high, moves.amount, shape)
            low_squares = running(moves.row, low, high, squares & LOW, shape)
            high_squares = running(moves.row, low, high, squares >> HALF, shape)
            for changed, sign in ((taken, -1), (left, 1)) if taken.row.size else ():
                # Counts stay: what was declined was tried. What is spent is another sum.
                seen = grid.visible(np.maximum(changed.bucket + 1, changed.seen), changed.bucket + span)
                of = changed.amount * changed.amount
                total = total + sign * running(changed.row, *seen, changed.amount, shape)
                low_squares = low_squares + sign * running(changed.row, *seen, of & LOW, shape)
                high_squares = high_squares + sign * running(changed.row, *seen, of >> HALF, shape)
            features[f"{name}_txn_count_{days}d"] = count.astype(np.float64)
            features[f"{name}_amount_sum_{days}d"] = total.astype(np.float64)
            features[f"{name}_amount_mean_{days}d"] = np.where(count > 0, total / count, np.nan)
            features[f"{name}_amount_std_{days}d"] = deviation(
                count,
                total,
                low_squares,
                high_squares,
            )
            for party, order in zip(entity.counterparties, parties, strict=True):
                place = entity.counterparties.index(party)
                features[f"{name}_distinct_{party}s_{days}d"] = distinct(
                    moves.row[order], moves.parties[place][order], low[order], high[order], shape
                ).astype(np.float64)
            frauds = running(
                reports.row,
                *grid.visible(told, np.minimum(reports.known - 1 + span, reports.until - 1)),
                1,
                shape,
            )
            mature = running(moves.row, *grid.visible(ripe, moves.bucket + request.maturity + span), 1, shape)
            confirmed = running(
                reports.row,
                *grid.visible(
                    ripe_told, np.minimum(reports.bucket + request.maturity + span, reports.until - 1)
                ),
                1,
                shape,
            )
            features[f"{name}_fraud_count_{days}d"] = frauds.astype(np.float64)
            features[f"{name}_fraud_rate_{days}d"] = np.where(mature > 0, confirmed / mature, np.nan)
            active |= (count > 0) | (frauds > 0) | (mature > 0)
        features[f"{name}_fraud_risk_{_LONGEST}d"] = confirmed / (mature + RISK_PRIOR)
    features |= _fraud_ages(name, moves, reports, ripe, told, shape, request)
    if name in AMOUNT_AGAINST:
        most = largest(
            moves.row, *grid.visible(start, moves.bucket + _LONGEST * CUTS_PER_DAY), moves.amount, shape
        )
        features[f"{name}_amount_max_{_LONGEST}d"] = np.where(most == NOTHING, np.nan, most)
    if name == "customer":
        features |= _usual_place(moves, start, shape, request)
    if name == "merchant":
        features |= _peer_features(moves, start, features, shape, request)
    return active, features


def _fraud_ages(
    name: str, moves: _Rows, reports: _Rows, ripe: Ints, told: Ints, shape: tuple[int, int], request: Request
) -> dict[str, Floats]:
    """How long ago the newest genuine transaction and the newest and first known frauds were."""
    grid, recent = request.grid, _LONGEST * CUTS_PER_DAY
    longest = request.maturity + recent
    cuts = np.arange(grid.first, grid.last + 1)[None, :]
    # Once reported, never again an example of a genuine one, even if the report is withdrawn.
    suspect = _first_told(moves.tx, reports.tx, told)
    genuine = largest(
        moves.row, *grid.visible(ripe, np.minimum(moves.bucket + longest, suspect - 1)), moves.bucket, shape
    )
    newest = largest(
        reports.row, *grid.visible(told, np.minimum(reports.bucket + longest, reports.until - 1)),
        reports.bucket, shape,
    )  # fmt: skip
    first = largest(
        reports.row, *grid.visible(told, np.minimum(reports.bucket + recent, reports.until - 1)),
        -reports.bucket, shape,
    )  # fmt: skip
    lead = newest - np.maximum(genuine, cuts - longest)  # without a genuine one, as if at the edge
    return {
        f"{name}_days_genuine_minus_fraud": np.where(newest == NOTHING, np.nan, lead / CUTS_PER_DAY),
        f"{name}_days_since_first_fraud_{_LONGEST}d": np.where(
            first == NOTHING, np.nan, (cuts + first) / CUTS_PER_DAY
        ),
    }


def _usual_place(moves: _Rows, start: Ints, shape: tuple[int, int], request: Request) -> dict[str, Floats]:
    """The middle of the directions of a customer's transactions, in degrees; NaN without any."""
    low, high = request.grid.visible(start, moves.bucket + _LONGEST * CUTS_PER_DAY)
    x, y, z = (running(moves.row, low, high, values, shape).astype(np.float64) for values in moves.direction)
    flat = np.hypot(x, y)
    nowhere = (flat == 0) & (z == 0)
    degrees = np.degrees(np.arctan2(z, flat)), np.degrees(np.arctan2(y, x))
    return {
        name: np.where(nowhere, np.nan, values) for name, values in zip(USUAL_PLACE, degrees, strict=True)
    }


def _first_told(tx: Ints, reported: Ints, told: Ints) -> Ints:
    """For each of `tx`, the first of the cuts `told` of its reports; far ahead without any."""
    order = np.lexsort((told, reported))
    known, first = np.unique(reported[order], return_index=True)
    result = np.full(tx.size, np.iinfo(np.int64).max, dtype=np.int64)
    if known.size:
        place = np.minimum(np.searchsorted(known, tx), known.size - 1)
        result = np.where(known[place] == tx, told[order][first[place]], result)
    return result


def _sorted_party(row: Ints, party: Ints, start: Ints) -> Ints:
    """Rows with a counterparty, by key, counterparty and first visible cut."""
    order = np.lexsort((start, party, row)).astype(np.int64)
    present: Ints = order[party[order] != 0]
    return present


def _peer_features(
    moves: _Rows, start: Ints, own: dict[str, Floats], shape: tuple[int, int], request: Request
) -> dict[str, Floats]:
    """A merchant among its peers: the merchants of the category it was last seen under."""
    longest = f"{_LONGEST}d"
    mine = own[f"merchant_txn_count_{longest}"]
    everyone = request.peers.count.astype(np.float64)
    names = sorted(request.peers.category)
    low, high = request.grid.visible(start, moves.bucket + _LONGEST * CUTS_PER_DAY)
    code = _ints(pc.index_in(moves.category, pa.array(names, pa.string())).fill_null(-1)) if names else None
    newest = np.full(shape, -1, dtype=np.int64)
    if code is not None:
        use = np.flatnonzero((code >= 0) & (low < high))
        # Later in this order is newer: known at a later cut, then a later event.
        order = use[np.lexsort((moves.tx[use], moves.bucket[use], start[use]))]
        rank = np.full(shape, -1, dtype=np.int64)
        np.maximum.at(rank, (moves.row[order], low[order]), np.arange(order.size))
        rank = np.maximum.accumulate(rank, axis=1)
        newest = np.where(rank >= 0, code[order][rank] if order.size else -1, -1)
    newest = np.where(mine > 0, newest, -1)
    table = {
        "share": np.full((len(names) + 1, shape[1]), np.nan),
        "mean": np.full((len(names) + 1, shape[1]), np.nan),
        "std": np.full((len(names) + 1, shape[1]), np.nan),
    }
    for place, category in enumerate(names):
        count, total, squares_low, squares_high = request.peers.category[category]
        table["share"][place] = np.where(everyone > 0, count / everyone, np.nan)
        table["mean"][place] = np.where(count > 0, total / count, np.nan)
        table["std"][place] = deviation(count, total, squares_low, squares_high)
    at = np.arange(shape[1])[None, :]  # code -1 picks the last line, all NaN
    return {
        f"merchant_share_{longest}": np.where(everyone > 0, mine / everyone, np.nan),
        f"merchant_category_share_{longest}": table["share"][newest, at],
        f"merchant_category_amount_mean_{longest}": table["mean"][newest, at],
        f"merchant_category_amount_std_{longest}": table["std"][newest, at],
    }
