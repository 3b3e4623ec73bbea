"""Why a transaction was reviewed or blocked, in words, cheap enough to be inline.

Method: *path attribution* (Saabas 2014, https://blog.datadive.net/interpreting-random-forests/).
Every split on a row's path through every tree is credited with the change of the node's value
that it made. It is exact for that definition but it is not SHAP: credit depends on the order of
splits. Exact SHAP values are at /v1/explain.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from bentos.models.model import Model
from fraud.features.feature_list import PHRASES
from fraud.features.phrases import OTHER_CODE, other_words
from stores.declared import declared
from stores.model_text import ModelTextError, Tree, read_trees
from stores.models import Floats, ModelError

METHOD: Final = "path attribution"
#: A rest after each tree, in seconds: a model is prepared in a thread beside the requests, which
#: would otherwise wait a whole switch interval (5 ms) for the interpreter, again and again.
_REST: Final = 0.0005


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


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for a decision: a phrase for people, and its code (`fraud.features.phrases`)."""

    phrase: str
    code: str


def in_words(names: tuple[str, ...], values: Floats, credits: Floats, most: int = 4) -> list[Reason]:
    """The features that raised one row's score most, as a person reads them, strongest first.

    A feature counts if it carries at least a twentieth of what all of them raised. Of what is unknown, and
    of what is no reason, nothing is told; nor is one thing told twice.
    """
    raised = float(credits[credits > 0].sum())
    known = dict(zip(names, values.tolist(), strict=True))
    reasons: dict[str, Reason] = {}
    for index in np.argsort(credits)[::-1].tolist():
        if len(reasons) == most or credits[index] <= 0.05 * raised or credits[index] <= 0:
            break
        name = names[index]
        phrase = PHRASES.get(name)
        if phrase is not None:
            said, code = phrase.of(known[name], known), phrase.code
        else:
            said, code = other_words(declared().meanings.get(name, name), known[name]), OTHER_CODE
        if said is not None:
            reasons.setdefault(said, Reason(said, code))
    return list(reasons.values())
