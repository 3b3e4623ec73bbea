"""Why a transaction was reviewed or blocked, in words, cheap enough to be inline.

Method: *path attribution* (Saabas 2014, https://blog.datadive.net/interpreting-random-forests/).
Every split on a row's path through every tree is credited with the change of the node's value
that it made. It is exact for that definition but it is not SHAP: credit depends on the order of
splits. Exact SHAP values are at /v1/explain.
"""

from __future__ import annotations

import math
import time
from typing import Final

import numpy as np

from bentos.models.model import Model
from fraud.features.feature_list import TRANSACTION_FEATURES
from fraud.features.profiles import PROFILE_FEATURES
from stores.declared import declared
from stores.model_text import ModelTextError, Tree, read_trees
from stores.models import Floats, ModelError

METHOD: Final = "path attribution"
#: A rest after each tree, in seconds: a model is prepared in a thread beside the requests, which
#: would otherwise wait a whole switch interval (5 ms) for the interpreter, again and again.
_REST: Final = 0.0005
_MEANING: Final = {feature.name: feature.meaning for feature in TRANSACTION_FEATURES} | {
    feature.name: feature.meaning for features in PROFILE_FEATURES.values() for feature in features
}


class PathAttribution:
    """Per leaf of every tree, the features on the path to it and the credit of each."""

    def __init__(self, model: Model, text: bytes) -> None:
        """`text` is the model's; raises `ModelError` if it is not sound."""
        self._model = model
        self._width = len(model.manifest.features)
        starts: list[int] = []
        paths: list[_Path] = []
        try:
            for tree in read_trees(text, self._width):
                starts.append(len(paths))
                paths += _paths(tree)
                time.sleep(_REST)
        except ModelTextError as error:
            raise ModelError(f"{model.tag}: model.txt {error}") from None
        longest = max((len(path) for path in paths), default=0)
        # Short paths are filled up with credits of 0, which change no sum.
        self._features = np.zeros((len(paths), longest), dtype=np.int64)
        self._credits = np.zeros((len(paths), longest))
        for row, path in enumerate(paths):
            for place, (feature, credit) in enumerate(path):
                self._features[row, place] = feature
                self._credits[row, place] = credit
        self._starts = np.array(starts, dtype=np.int64)

    def of(self, row: Floats) -> Floats:
        """Credits in log-odds of one row (1 x features), by feature."""
        leaves = self._model.leaves(row)[0].astype(np.int64) + self._starts
        weights = self._credits[leaves].ravel()
        return np.asarray(np.bincount(self._features[leaves].ravel(), weights, self._width), np.float64)


_Path = list[tuple[int, float]]


def _paths(tree: Tree) -> list[_Path]:
    """The path to every leaf of a tree: (feature, credit) by split."""
    paths: list[_Path] = [[] for _ in tree.leaf_value]
    if len(paths) == 1:
        return paths
    features, inner, leaf = (
        values.tolist() for values in (tree.split_feature, tree.internal_value, tree.leaf_value)
    )
    children = [tree.left_child.tolist(), tree.right_child.tolist()]
    stack: list[tuple[int, _Path]] = [(0, [])]
    while stack:
        node, path = stack.pop()
        for side in children:
            child = side[node]
            value = inner[child] if child >= 0 else leaf[~child]
            longer = [*path, (features[node], value - inner[node])]
            if child >= 0:
                stack.append((child, longer))
            else:
                paths[~child] = longer
    return paths


def in_words(names: tuple[str, ...], values: Floats, credits: Floats, most: int = 4) -> list[str]:
    """The features that raised one row's score most, as an analyst reads them.

    A feature counts if it carries at least a twentieth of what all of them raised.
    """
    order = np.argsort(credits)[::-1][:most]
    raised = float(credits[credits > 0].sum())
    factors = []
    for index in order:
        if credits[index] <= 0.05 * raised or credits[index] <= 0:
            break
        name = names[index]
        factors.append(f"{_meaning(name)}: {_readable(name, float(values[index]))}")
    return factors


def _meaning(name: str) -> str:
    known = _MEANING.get(name) or declared().meanings.get(name, name)
    return str(known).replace("in reference cents", "in the reference currency")


def _readable(name: str, value: float) -> str:
    if math.isnan(value):
        return "unknown"
    if "amount_mean" in name or "amount_std" in name or "amount_sum" in name or name == "txn_amount":
        return f"{value / 100:,.2f}"
    if name.startswith("seconds_") or "_seconds_" in name:
        return f"{value:,.0f} s"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 0.1 else f"{value:.4f}"
