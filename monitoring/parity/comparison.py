"""Two tables of vectors, served and rebuilt, compared value by value.

Every value is *exact* (equal, or missing on both sides), *within float noise* (1e-9 relative) or *different*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from monitoring.parity.causes import causes_of

NOISE: Final = 1e-9
CAUSES: Final = ("timeout", "stale", "missing", "late", "withdrawn", "unexplained")
MEANING: Final[dict[str, str]] = {
    "timeout": "the online read of the view took longer than its deadline",
    "stale": "the online value was past its ttl",
    "missing": "the online store held nothing for the entity",
    "late": "serving read a state that the entity's previous transaction had not reached yet",
    "withdrawn": "serving counted a payment that was under way and then refused",
    "unexplained": "none of the known causes: look at the feature's code on both paths",
}
MOST_EXAMPLES: Final = 20
_JOIN: Final = "transaction_id"


class ParityError(ValueError):
    """Two tables that cannot be compared; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class FeatureParity:
    """How often one feature was exact, within noise or different."""

    feature: str
    exact: int
    noise: int
    different: int
    max_abs_diff: float


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The comparison of `rows` vectors of `features` values each.

    `max_abs_diff` is over values present on both sides; a value present on one side only is
    different, without a distance. `unmatched` counts served rows that the rebuild does not have.
    """

    rows: int
    features: int
    mismatched_rows: int
    max_abs_diff: float
    worst_feature: str | None
    causes: dict[str, int]
    values_exact: int = 0
    values_noise: int = 0
    values_different: int = 0
    unmatched: int = 0
    by_feature: list[FeatureParity] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mismatched_share(self) -> float:
        return self.mismatched_rows / self.rows if self.rows else 0.0

    def summary(self) -> dict[str, Any]:
        """The part that belongs in a closing table."""
        return {
            "rows": self.rows, "features": self.features, "mismatched_rows": self.mismatched_rows,
            "max_abs_diff": self.max_abs_diff, "worst_feature": self.worst_feature, "causes": self.causes,
        }  # fmt: skip

    def failed(self, allowed_share: float = 0.0) -> bool:
        """Whether more rows than allowed differ, or some do without a known cause or a partner."""
        return (
            self.mismatched_share > allowed_share
            or bool(self.causes.get("unexplained"))
            or self.unmatched > 0
        )


def compare(
    served: pa.Table,
    rebuilt: pa.Table,
    features: Sequence[str],
    *,
    views: Mapping[str, Sequence[str]] | None = None,
    arrivals: pa.Table | None = None,
) -> ParityReport:
    """Compare two tables by `transaction_id`, value by value.

    `served` is the decision log, `rebuilt` what a point-in-time join gives; both hold `features` as
    floats. `views` names the views each feature is computed from (`views_of_features` of this
    project by default); causes need the log's feature_status, view_timestamps, event_timestamp,
    created_timestamp and entity columns, and without them a mismatch is unexplained. `arrivals` are all
    decisions of the time, where `served` is a sample of them. Raises `ParityError`.
    """
    for name, table in (("served", served), ("rebuilt", rebuilt)):
        absent = [column for column in (_JOIN, *features) if column not in table.column_names]
        if absent:
            raise ParityError(f"the {name} table lacks {len(absent)} columns, first {absent[0]}")
    places = pd.Index(rebuilt[_JOIN].to_pandas())
    if not places.is_unique:
        raise ParityError("the rebuilt table has a transaction twice: the join fanned a row out")
    at = places.get_indexer(pd.Index(served[_JOIN].to_pandas()))
    found = at >= 0
    rows = int(found.sum())
    mismatch = np.zeros(rows, dtype=bool)
    different = np.zeros((len(features), rows), dtype=bool)
    by_feature: list[FeatureParity] = []
    for place, name in enumerate(features):
        left = _floats(served[name])[found]
        right = _floats(rebuilt[name])[at[found]]
        exact = (left == right) | (np.isnan(left) & np.isnan(right))
        with np.errstate(invalid="ignore"):
            distance = np.abs(left - right)
            noise = ~exact & (distance <= NOISE * np.maximum(np.abs(left), np.abs(right)))
        wrong = ~(exact | noise)
        different[place] = wrong
        mismatch |= wrong
        present = distance[wrong & ~np.isnan(distance)]
        by_feature.append(
            FeatureParity(
                name, int(exact.sum()), int(noise.sum()), int(wrong.sum()), float(present.max(initial=0.0))
            )
        )
    worst = max(by_feature, key=lambda f: (f.different, f.max_abs_diff, f.noise), default=None)
    kept = served.filter(pa.array(found))
    known = views_of_features() if views is None else views
    causes = causes_of(kept, served if arrivals is None else arrivals, mismatch, different, features, known)
    return ParityReport(
        rows=rows,
        features=len(features),
        mismatched_rows=int(mismatch.sum()),
        max_abs_diff=max((f.max_abs_diff for f in by_feature), default=0.0),
        worst_feature=worst.feature if worst is not None and worst.different + worst.noise else None,
        causes={name: causes.count(name) for name in CAUSES if name in causes},
        values_exact=sum(f.exact for f in by_feature),
        values_noise=sum(f.noise for f in by_feature),
        values_different=sum(f.different for f in by_feature),
        unmatched=int((~found).sum()),
        by_feature=by_feature,
        examples=_examples(kept, rebuilt, at[found], mismatch, different, features, causes),
    )


def views_of_features() -> dict[str, tuple[str, ...]]:
    """The feature views each feature of the vector is computed from."""
    from fraud.features.entities import ENTITY_BY_NAME
    from fraud.features.feature_list import TRANSACTION_FEATURES
    from fraud.features.profiles import SERVED_PROFILES
    from stores.declared import declared

    views: dict[str, tuple[str, ...]] = {}
    for name, columns in SERVED_PROFILES.items():
        views.update(dict.fromkeys(columns, (ENTITY_BY_NAME[name].profile_view,)))
    for feature in TRANSACTION_FEATURES:
        if feature.entity is None:
            views[feature.name] = ()
            continue
        entity = ENTITY_BY_NAME[feature.entity]
        against_profile = "30d" in feature.name
        views[feature.name] = (entity.velocity_view, *([entity.profile_view] if against_profile else []))
    own = dict(declared().declarations.features())
    views.update({name: (view,) if view else () for name, view in own.items()})
    return views


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _examples(
    served: pa.Table,
    rebuilt: pa.Table,
    at: Any,
    mismatch: Any,
    different: Any,
    features: Sequence[str],
    causes: list[str],
) -> list[dict[str, Any]]:
    """A few mismatched values, by row position: no identifier leaves the log."""
    examples = []
    for place, row in enumerate(np.flatnonzero(mismatch)[:MOST_EXAMPLES]):
        name = features[int(np.flatnonzero(different[:, row])[0])]
        examples.append(
            {
                "row": int(row),
                "feature": name,
                "served": served[name][int(row)].as_py(),
                "rebuilt": rebuilt[name][int(at[row])].as_py(),
                "different_features": int(different[:, row].sum()),
                "cause": causes[place],
            }
        )
    return examples
