"""How far two places are apart, in loops that numba compiles."""

from __future__ import annotations

from math import asin, cos, nan, radians, sin, sqrt
from typing import Final

from machine.compiled import compiled

#: Mean radius of the earth.
EARTH_KM: Final = 6371.0088


@compiled
def great_circle_km(latitude: float, longitude: float, to_latitude: float, to_longitude: float) -> float:
    """Great-circle distance (haversine) between two places in degrees, NaN where one is not known."""
    north = sin((radians(to_latitude) - radians(latitude)) / 2)
    east = sin((radians(to_longitude) - radians(longitude)) / 2)
    half = north * north + cos(radians(latitude)) * cos(radians(to_latitude)) * (east * east)
    if half > 1:
        half = 1.0
    return 2 * EARTH_KM * asin(sqrt(half)) if half >= 0 else nan  # below 0: damaged latitudes
