"""How far one column of the current data lies from the same column of the reference.

The tests are chosen for large, clustered samples, where significance tests (Kolmogorov-Smirnov
and its kin) call every week drift: distances with a size that means something. Numeric columns
have Evidently's Wasserstein distance, in standard deviations of the reference, and a population
stability index over the reference's own deciles, which follows skewed columns that equal-width
bins cannot see. Columns of few values have the Jensen-Shannon distance. The share of missing
values is measured for every column, because no test of the values sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from fraud.features.feature_list import CATEGORICAL
from monitoring.drift.thresholds import Thresholds

Kind = Literal["numeric", "category", "empty", "view"]
Floats = np.ndarray[Any, np.dtype[np.float64]]

#: A numeric column with at most this many values in both samples is read as categories.
FEW_VALUES: Final = 12
#: Categories past the most frequent ones of the reference are counted as one.
TOP_CATEGORIES: Final = 20
#: Distances are taken over at most this many rows a side; counts over all of them.
SAMPLE_ROWS: Final = 100_000
#: Below this many present values on a side no distance is taken.
FEWEST_VALUES: Final = 200
#: Share at each end of the reference past which values count as at its edge.
BULK: Final = 0.005
#: From this share on, a column is one value with exceptions.
MOSTLY: Final = 0.98
#: Fractions with fewer values than this belong to a few groups, which cross a decile's edge all at once.
FEWEST_DISTINCT: Final = 1_000
DECILE_PSI: Final = "decile_psi"
OTHER: Final = "(other)"
#: Columns whose values are names: one that the reference never had is news, however rare.
NAMES: Final = frozenset({*CATEGORICAL, "channel", "merchant_category", "country", "currency"})
SCORE: Final = "score"
#: Columns that grow by a second a second. Everything known for longer than this counts alike.
AGEING: Final = re.compile(r"seconds_since_first")
OLD_SECONDS: Final = 30 * 86_400.0

#: What each measure says, for people.
MEASURE_MEANING: Final = {
    "wasserstein": "average distance moved, in standard deviations of the reference",
    "psi": "population stability index over the reference's deciles",
    "js": "Jensen-Shannon distance between the shares of each value",
    "missing": "change of the share of missing values",
    "unseen": "share of values that the reference never had",
}


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column's distances, the limit of each, and which limits were passed."""

    column: str
    kind: Kind
    values: dict[str, float]
    limits: dict[str, float]
    reference_mean: float | None = None
    current_mean: float | None = None
    reference_median: float | None = None
    current_median: float | None = None
    reference_missing: float = 0.0
    current_missing: float = 0.0
    passed: tuple[str, ...] = field(default=())

    @property
    def drifted(self) -> bool:
        return bool(self.passed)

    @property
    def strength(self) -> float:
        """The largest measure, as a multiple of its limit: 1 is just at it."""
        return max((self.values[name] / self.limits[name] for name in self.values), default=0.0)


def decile_edges(reference: Floats, bins: int = 10) -> Floats:
    """Inner edges that cut `reference` into `bins` equal shares; repeated edges are merged."""
    return np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))


def decile_psi(reference: Floats, current: Floats, bins: int = 10) -> float:
    """Population stability index over the deciles of `reference` (both without missing values).

    Sum over bins of ``(c - r) * ln(c / r)``; an empty bin counts as half a row. A value that holds
    more than a decile of the reference gets a bin of its own (Siddiqi, Credit Risk Scorecards, 2006).
    """
    edges = decile_edges(reference, bins)

    # an edge belongs to the bin below it, and to one of its own where the values pile up on it
    def shares(values: Floats) -> Floats:
        below = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
        return np.bincount(below, minlength=2 * len(edges) + 1).astype(np.float64)

    r, c = shares(reference), shares(current)
    used = (r + c) > 0
    r, c = np.maximum(r[used], 0.5) / len(reference), np.maximum(c[used], 0.5) / len(current)
    return float(np.sum((c - r) * np.log(c / r)))


@cache
def register_with_evidently() -> str:
    """Make `decile_psi` a test that Evidently knows by name; return the name."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def decile_psi_test(
        reference: pd.Series, current: pd.Series, feature_type: ColumnType, threshold: float
    ) -> tuple[float, bool]:
        value = decile_psi(reference.to_numpy(np.float64), current.to_numpy(np.float64))
        return value, value >= threshold

    test = StatTest(
        name=DECILE_PSI,
        display_name="PSI over deciles",
        allowed_feature_types=[ColumnType.Numerical],
        default_threshold=0.1,
    )
    register_stattest(test, decile_psi_test)
    return DECILE_PSI


def evidently_distance(name: str, reference: pd.Series, current: pd.Series) -> float:
    """Evidently's own `name` statistic (wasserstein or jensenshannon) between two samples."""
    from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
    from evidently.legacy.core import ColumnType

    numeric = name == "wasserstein"
    test = wasserstein_stat_test if numeric else jensenshannon_stat_test
    kind = ColumnType.Numerical if numeric else ColumnType.Categorical
    result = test(reference, current, kind, None)
    return float(result.drift_score)


def sample(frame: pd.DataFrame, limit: int = SAMPLE_ROWS) -> pd.DataFrame:
    """At most `limit` rows of `frame`, the same ones every time, in their order."""
    if len(frame) <= limit:
        return frame
    places = np.sort(np.random.default_rng(20180401).choice(len(frame), limit, replace=False))
    return frame.iloc[places]


def top_categories(
    reference: pd.Series, current: pd.Series, top: int = TOP_CATEGORIES
) -> tuple[pd.Series, pd.Series]:
    """Both columns as text, all but the `top` values of the reference counted as "(other)"."""
    r, c = reference.dropna().astype(str), current.dropna().astype(str)
    kept = set(r.value_counts().index[:top])
    return r.where(r.isin(kept), OTHER), c.where(c.isin(kept), OTHER)


def kind_of(reference: pd.Series, current: pd.Series) -> Kind:
    """Whether a column is measured as numbers, as categories, or holds nothing on either side."""
    if reference.notna().sum() == 0 and current.notna().sum() == 0:
        return "empty"
    if not (pd.api.types.is_numeric_dtype(reference) and pd.api.types.is_numeric_dtype(current)):
        return "category"
    few = len(pd.unique(reference.dropna())) <= FEW_VALUES and len(pd.unique(current.dropna())) <= FEW_VALUES
    return "category" if few else "numeric"


def measure_column(
    name: str, reference: pd.Series, current: pd.Series, thresholds: Thresholds
) -> ColumnDrift:
    """Every measure of one column. Infinite values count as missing."""
    kind = kind_of(reference, current)
    numeric = pd.api.types.is_numeric_dtype(reference) and pd.api.types.is_numeric_dtype(current)
    if numeric:
        reference, current = finite(reference), finite(current)
    missing = float(reference.isna().mean()), float(current.isna().mean())
    values: dict[str, float] = {"missing": abs(missing[1] - missing[0])}
    r, c = reference.dropna(), current.dropna()
    if min(len(r), len(c)) >= FEWEST_VALUES:
        values |= _numeric_values(name, r, c) if kind == "numeric" else _category_values(name, r, c)
    limits = {measure: thresholds.limit(name, measure) for measure in values}
    return ColumnDrift(
        column=name,
        kind=kind,
        values=values,
        limits=limits,
        reference_mean=float(r.mean()) if numeric and len(r) else None,
        current_mean=float(c.mean()) if numeric and len(c) else None,
        reference_median=float(r.median()) if numeric and len(r) else None,
        current_median=float(c.median()) if numeric and len(c) else None,
        reference_missing=missing[0],
        current_missing=missing[1],
        passed=tuple(measure for measure in values if values[measure] >= limits[measure]),
    )


def prepare(name: str, reference: pd.Series, current: pd.Series) -> tuple[Kind, pd.Series, pd.Series]:
    """Both columns of numbers as they are compared, and whether as numbers or as categories.

    Values past the reference's outer half percent count as at it: a burst of a few dozen
    transactions would otherwise move the average distance of a skewed column by itself. A column
    that is one value with exceptions becomes "usual" and "other". Missing values stay missing.
    """
    if AGEING.search(name):
        reference, current = reference.clip(upper=OLD_SECONDS), current.clip(upper=OLD_SECONDS)
    counts = reference.value_counts()
    if len(counts) and counts.iloc[0] >= MOSTLY * counts.sum():
        usual = counts.index[0]
        sides = [
            pd.Series(np.where(side == usual, "usual", "other"), index=side.index).where(side.notna())
            for side in (reference, current)
        ]
        return "category", sides[0], sides[1]
    low, high = reference.quantile([BULK, 1 - BULK])
    return "numeric", reference.clip(low, high), current.clip(low, high)


def _numeric_values(name: str, r: pd.Series, c: pd.Series) -> dict[str, float]:
    kind, r, c = prepare(name, r, c)
    if kind == "category":
        return {"js": evidently_distance("jensenshannon", r, c)}
    # Where a wave of attacks puts a score is the decision mix's to tell: here its bulk counts, by deciles.
    values = {} if name == SCORE else {"wasserstein": evidently_distance("wasserstein", r, c)}
    distinct = pd.unique(r)
    if name == SCORE or len(distinct) >= FEWEST_DISTINCT or bool((distinct == np.floor(distinct)).all()):
        values["psi"] = decile_psi(r.to_numpy(np.float64), c.to_numpy(np.float64))
    return values


def _category_values(name: str, r: pd.Series, c: pd.Series) -> dict[str, float]:
    values = {"js": evidently_distance("jensenshannon", *top_categories(r, c))}
    if name in NAMES:
        values["unseen"] = float((~c.isin(r.unique())).mean())
    return values


def finite(column: pd.Series) -> pd.Series:
    """A numeric column as float64 with its infinities missing."""
    floats = column.astype("float64")
    return floats.where(np.isfinite(floats))


def measure(
    reference: pd.DataFrame, current: pd.DataFrame, columns: Iterable[str], thresholds: Thresholds
) -> list[ColumnDrift]:
    """`measure_column` for each of `columns`, the strongest first."""
    r, c = sample(reference), sample(current)
    drifts = [measure_column(name, r[name], c[name], thresholds) for name in columns]
    return sorted(drifts, key=lambda drift: (-drift.strength, drift.column))
