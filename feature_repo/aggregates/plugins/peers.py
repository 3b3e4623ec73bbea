"""An entity among its peers: its share of everything, and the category that it was last seen under."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.aggregates.frame import Floats, Frame, Peers, cuts_of
from feature_repo.aggregates.grid import Ints, deviation
from fraud.declared.figures import Figure


def share(frame: Frame, figure: Figure) -> Floats:
    """Share of all transactions that are the entity's."""
    span = cuts_of(figure.window_ms)
    everyone = frame.request.peers[span].count.astype(np.float64)
    return np.where(everyone > 0, frame.count(span).astype(np.float64) / everyone, np.nan)


def category_share(frame: Frame, figure: Figure) -> Floats:
    """Share of all transactions that are in the entity's category."""
    peers = frame.request.peers[cuts_of(figure.window_ms)]
    everyone = peers.count.astype(np.float64)
    lines = [np.where(everyone > 0, count / everyone, np.nan) for count, *_ in _sums(peers)]
    return _of_category(frame, figure, lines)


def category_mean(frame: Frame, figure: Figure) -> Floats:
    """Mean amount in the entity's category."""
    peers = frame.request.peers[cuts_of(figure.window_ms)]
    lines = [np.where(count > 0, total / count, np.nan) for count, total, *_ in _sums(peers)]
    return _of_category(frame, figure, lines)


def category_std(frame: Frame, figure: Figure) -> Floats:
    """Standard deviation of amounts in the entity's category."""
    peers = frame.request.peers[cuts_of(figure.window_ms)]
    return _of_category(frame, figure, [deviation(*sums) for sums in _sums(peers)])


def _sums(peers: Peers) -> list[tuple[Ints, Ints, Ints, Ints]]:
    return [peers.category[name] for name in sorted(peers.category)]


def _of_category(frame: Frame, figure: Figure, lines: list[Floats]) -> Floats:
    """For each key and cut the line of the category that the key was last seen under."""
    nothing = np.full(frame.shape[1], np.nan)
    table = np.stack([*lines, nothing])
    newest = _newest_category(frame, cuts_of(figure.window_ms))
    found: Floats = table[newest, np.arange(frame.shape[1])[None, :]]  # -1 picks the last line
    return found


def _newest_category(frame: Frame, span: int) -> Ints:
    found: Ints = frame.once(("category", span), lambda: _find_category(frame, span))
    return found


def _find_category(frame: Frame, span: int) -> Ints:
    moves, start = frame.moves, frame.start
    assert moves.category is not None
    names = sorted(frame.request.peers[span].category)
    newest = np.full(frame.shape, -1, dtype=np.int64)
    if names:
        low, high = frame.visible(span)
        found = pc.index_in(moves.category, pa.array(names, pa.string())).fill_null(-1)
        code: Ints = found.cast(pa.int64()).to_numpy(zero_copy_only=False)
        use = np.flatnonzero((code >= 0) & (low < high))
        # Later in this order is newer: known at a later cut, then a later event.
        order = use[np.lexsort((moves.tx[use], moves.bucket[use], start[use]))]
        rank = np.full(frame.shape, -1, dtype=np.int64)
        np.maximum.at(rank, (moves.row[order], low[order]), np.arange(order.size))
        rank = np.maximum.accumulate(rank, axis=1)
        newest = np.where(rank >= 0, code[order][rank] if order.size else -1, -1)
    return np.where(frame.count(span) > 0, newest, -1)


FUNCTIONS: Final = {
    "share": share,
    "category_share": category_share,
    "category_mean": category_mean,
    "category_std": category_std,
}
