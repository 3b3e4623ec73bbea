"""A weighted ensemble as an option that must earn its latency: `python -m training.train --ensemble`.

The second learner is a forest-like one: extremely randomised trees (Geurts, Ernst and Wehenkel
2006), boosted with fewer leaves and a smaller share of the columns, so that it errs elsewhere.
Both vote in log-odds with weights chosen on the validation rows. Trees are added up, so the
ensemble is again one LightGBM text that serves, explains itself and exports as before; what it
costs is the time of more trees. It is kept only if it is surely better, not just on average.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import Interval, difference_interval
from training.metrics import Floats, average_precision, rank

#: What the second learner changes in the settings of the first.
SECOND: Final[dict[str, Any]] = {
    "extra_trees": True, "num_leaves": 63, "feature_fraction": 0.8, "learning_rate": 0.08,
}  # fmt: skip
STEP: Final = 0.1
_TREES: Final = re.compile(r"(?=^Tree=\d+$)", re.MULTILINE)
_SCALED: Final = re.compile(r"^(leaf_value|internal_value)=(.*)$", re.MULTILINE)
_END: Final = "end of trees"


@dataclass(frozen=True)
class Member:
    """One learner of a model: its settings, its number of trees and its weight."""

    settings: dict[str, Any]
    trees: int
    weight: float


@dataclass(frozen=True)
class Earned:
    """Whether an ensemble is worth its latency: weights of its members, and its gain in average
    precision over the first member alone on the same rows, with a 95% interval."""

    weights: tuple[float, ...]
    gain: float
    interval: Interval

    @property
    def kept(self) -> bool:
        return self.interval[0] > 0 and self.weights[0] < 1

    def report(self) -> dict[str, Any]:
        return {"weights": list(self.weights), "average_precision_gain": self.gain,
                "interval": list(self.interval), "kept": self.kept}  # fmt: skip


def log_odds(probability: Floats) -> Floats:
    """Log-odds of probabilities, kept finite."""
    clipped = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(clipped / (1 - clipped)))


def judge_ensemble(
    label: NDArray[np.generic],
    members: Sequence[Floats],
    *,
    groups: NDArray[np.generic] | None = None,
    weight: Floats | None = None,
    rounds: int = 200,
) -> Earned:
    """Weights in steps of a tenth that rank the rows best, and what they gain over `members[0]`.

    `members` are raw probabilities on rows that no member was fitted on. The weights are chosen
    on the same rows that judge them, so the gain flatters the ensemble: one that fails fails.
    """
    margins = np.stack([log_odds(member) for member in members])
    best = max(
        _weights(len(members)), key=lambda each: average_precision(rank(label, each @ margins, weight))
    )
    first, mixed = margins[0], best @ margins
    gain = average_precision(rank(label, mixed, weight)) - average_precision(rank(label, first, weight))
    interval = difference_interval(
        label, mixed, first, average_precision, groups=groups, weight=weight, rounds=rounds
    )
    return Earned(tuple(best.round(3).tolist()), gain, interval)


def _weights(members: int) -> list[Floats]:
    """Every choice of weights in steps that adds up to 1, the first member alone first."""
    steps = round(1 / STEP)
    choices = np.stack(np.meshgrid(*[np.arange(steps + 1)] * members), axis=-1).reshape(-1, members)
    whole = choices[choices.sum(axis=1) == steps]
    order = np.lexsort(-whole.T[::-1])
    return [np.asarray(each / steps, dtype=np.float64) for each in whole[order]]


def merged(texts: Mapping[str, float]) -> str:
    """One LightGBM text whose log-odds are the weighted sum of those of `texts` (text to weight).

    The members read the same features. Everything but the trees is taken from the first.
    """
    trees: list[str] = []
    head = tail = ""
    for text, weight in texts.items():
        before, *blocks = _TREES.split(text)
        blocks[-1], _, after = blocks[-1].partition(_END)
        head, tail = head or before, tail or after
        trees += [_SCALED.sub(lambda match, by=weight: _scale(match, by), block) for block in blocks]
    numbered = [re.sub(r"^Tree=\d+", f"Tree={place}", tree) for place, tree in enumerate(trees)]
    sizes = " ".join(str(len(tree.encode())) for tree in numbered)
    head = re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", head, flags=re.MULTILINE)
    return head + "".join(numbered) + _END + tail


def _scale(match: re.Match[str], by: float) -> str:
    values = " ".join(repr(float(value) * by) for value in match.group(2).split())
    return f"{match.group(1)}={values}"
