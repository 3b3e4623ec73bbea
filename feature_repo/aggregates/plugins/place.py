"""Where an entity usually is: the middle of the directions of its transactions, in degrees."""

from __future__ import annotations

from typing import Final

import numpy as np

from feature_repo.aggregates.frame import Floats, Frame, cuts_of
from feature_repo.aggregates.grid import running
from fraud.declared.figures import Figure


def usual_latitude(frame: Frame, figure: Figure) -> Floats:
    """Latitude of the middle; NaN without a transaction that has a location."""
    x, y, z = _middle(frame, figure)
    flat = np.hypot(x, y)
    return np.where((flat == 0) & (z == 0), np.nan, np.degrees(np.arctan2(z, flat)))


def usual_longitude(frame: Frame, figure: Figure) -> Floats:
    """Longitude of the middle."""
    x, y, z = _middle(frame, figure)
    return np.where((np.hypot(x, y) == 0) & (z == 0), np.nan, np.degrees(np.arctan2(y, x)))


def _middle(frame: Frame, figure: Figure) -> tuple[Floats, Floats, Floats]:
    low, high = frame.visible(cuts_of(figure.window_ms))
    x, y, z = (
        running(frame.moves.row, low, high, values, frame.shape).astype(np.float64)
        for values in frame.moves.direction
    )
    return x, y, z


FUNCTIONS: Final = {"usual_latitude": usual_latitude, "usual_longitude": usual_longitude}
