"""Reasons to refuse a trained model: it diverged, or it knows what it cannot know."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.metrics import NoFraudError, auc, rank
from training.rows import Rows

#: No honest model of card fraud ranks this well while labels arrive days late; where the
#: data's own ceiling is known to be lower, pass it (`--auc-ceiling`).
AUC_CEILING = 0.995


#: With fewer frauds than this a Brier score within a tenth of the base rate's is noise.
CLEAR_FRAUDS = 50


#: Features that a refusal names.
_NAMED = 3

OnLeak = Literal["refuse", "mark"]


class RefusedError(ValueError):
    """A model that must not be saved; the text says what was measured and where to look."""


class DivergedError(RefusedError):
    """Its probabilities are worse than always answering the base rate."""


class Leak(NamedTuple):
    """A model that ranks better than the label delay allows, and what ranks like that alone."""

    auc: float
    ceiling: float
    #: Names of the strongest features with the AUC of each alone, strongest first.
    strongest: tuple[tuple[str, float], ...]

    @property
    def words(self) -> str:
        """What was seen."""
        alone = ", ".join(f"{name} (AUC {value:.4f})" for name, value in self.strongest)
        return (
            f"leaking: AUC {self.auc:.4f} is above {self.ceiling:g}, more than this label delay allows; "
            f"the strongest single features are {alone}: see when their sources were known"
        )

    def report(self) -> dict[str, Any]:
        """For manifest, card and summary."""
        return {"auc": self.auc, "ceiling": self.ceiling, "strongest": dict(self.strongest)}


class LeakError(RefusedError):
    """It ranks better than the label delay allows: some feature knows the label. `leak` is what was seen."""

    def __init__(self, leak: Leak) -> None:
        self.leak = leak
        name = leak.strongest[0][0] if leak.strongest else "NAME"
        super().__init__(
            f"{leak.words}. Two ways on: leave the feature out (--drop {name}), or, where such a rank is "
            "what these data are like, go on with a model that is marked in its card and in the summary "
            "(--on-leak mark)"
        )


def refuse(
    figures: Mapping[str, float], rows: Rows, *, auc_ceiling: float = AUC_CEILING,
    on_leak: OnLeak = "refuse", without: Collection[str] = (),
) -> Leak | None:  # fmt: skip
    """Raise `DivergedError` or `LeakError` if the held-out `figures` say so.

    `figures` come from `metrics.summary` on `rows`, which the model has not seen. With `on_leak` "mark" a
    leak is returned instead. Features of `without` are not looked at: no tree reads them.
    """
    if diverged(figures):
        raise DivergedError(
            f"diverged: Brier {figures['brier']:.6f} is not below the base rate's "
            f"{figures['brier_base_rate']:.6f}; "
            "lower the learning rate, or raise min_sum_hessian_in_leaf and lambda_l2"
        )
    if figures["auc"] <= auc_ceiling:
        return None
    leak = Leak(figures["auc"], auc_ceiling, tuple(strongest_features(rows, without)[:_NAMED]))
    if on_leak == "refuse":
        raise LeakError(leak)
    return leak


def dropped(names: Collection[str], drop: Collection[str]) -> NDArray[np.bool_]:
    """Which of the features `names` are to be left out; `RefusedError` names one that there is not."""
    for name in drop:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            raise RefusedError(
                f"--drop {name}: there is no such feature" + (f"; did you mean {near[0]}?" if near else "")
            )
    return np.isin(np.array(list(names)), list(drop))


def diverged(figures: Mapping[str, float]) -> bool:
    """Whether Brier is not below p(1 - p); with few frauds, not even near it."""
    tolerance = 1.1 if figures["frauds"] < CLEAR_FRAUDS else 1.0
    return figures["brier"] >= figures["brier_base_rate"] * tolerance


def strongest_feature(rows: Rows, *, most_rows: int = 50_000) -> tuple[str, float]:
    """The feature that ranks best alone, and its AUC; one that tells nothing where there is none."""
    found = strongest_features(rows, most_rows=most_rows)
    return found[0] if found else ("", 0.5)


def strongest_features(
    rows: Rows, without: Collection[str] = (), *, most_rows: int = 50_000
) -> list[tuple[str, float]]:
    """Features with the AUC of each alone (either way up, missing as lowest), strongest first."""
    step = max(len(rows) // most_rows, 1)
    found: list[tuple[str, float]] = []
    for place, name in enumerate(rows.names):
        if name in without:
            continue
        values = np.nan_to_num(rows.features[::step, place], nan=-np.inf, neginf=-1e300, posinf=1e300)
        values = np.where(np.isneginf(values), -1e301, values)
        try:
            alone = auc(rank(rows.label[::step], values))
        except NoFraudError:
            return found
        found.append((name, max(alone, 1 - alone)))
    return sorted(found, key=lambda pair: -pair[1])
