"""LightGBM's text format, read and checked before LightGBM itself reads it.

LightGBM trusts the text: an index out of range, a cycle of children or a size that points elsewhere ends
or hangs the process that loads or asks the model. Everything that it follows is checked here, without it
(https://github.com/microsoft/LightGBM/blob/master/src/io/tree.cpp, `Tree::Tree(const char*, size_t*)`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

#: Bounds of a model that is read at all: ours have hundreds of trees of dozens of leaves.
LARGEST_TEXT: Final = 256_000_000
MOST_TREES: Final = 20_000
MOST_LEAVES: Final = 65_536
_TREES_END: Final = b"end of trees\n"
_INTEGERS: Final = re.compile(rb"-?\d{1,10}(?: -?\d{1,10})*")
_NUMBERS: Final = re.compile(rb"(?:[-+.0-9eE]+|-?inf)(?: (?:[-+.0-9eE]+|-?inf))*")
#: Keys of a tree that LightGBM reads; another one, or one that stands twice, is refused.
_KEYS: Final = frozenset(
    b"num_leaves num_cat split_feature split_gain threshold decision_type left_child right_child leaf_value"
    b" leaf_weight leaf_count internal_value internal_weight internal_count cat_boundaries cat_threshold"
    b" is_linear shrinkage".split()
)
_CATEGORICAL: Final = 1

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class ModelTextError(ValueError):
    """A text that LightGBM must not be given; says which tree and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree: feature, children (below 0: leaf ~child) and value by inner node, and values by leaf."""

    split_feature: Integers
    left_child: Integers
    right_child: Integers
    internal_value: Floats
    leaf_value: Floats


def read_trees(text: bytes, width: int) -> Iterator[Tree]:
    """The trees of a model of `width` features, one by one; raise `ModelTextError`.

    Nodes are numbered as LightGBM grows them: a child's number is above its parent's, so no path has
    more steps than the tree has nodes.
    """
    if len(text) > LARGEST_TEXT:
        raise ModelTextError(f"is larger than {LARGEST_TEXT} bytes")
    if not text.isascii() or b"\r" in text or b"\0" in text:
        raise ModelTextError("should be plain ASCII lines")
    header, blank, _ = text.partition(b"\n\n")
    facts = _pairs(header, "its head")
    for key, expected in ((b"num_class", b"1"), (b"num_tree_per_iteration", b"1")):
        if facts.get(key) != expected:
            raise ModelTextError(f"{key.decode()} should be {expected.decode()}")
    if facts.get(b"max_feature_idx") != b"%d" % (width - 1):
        raise ModelTextError(f"should have {width} features")
    sizes = _integers(facts, b"tree_sizes", None, "its head")
    if not 1 <= len(sizes) <= MOST_TREES or sizes.min() < 1:
        raise ModelTextError(f"should have 1 to {MOST_TREES} trees")
    at = len(header) + len(blank)
    for number, size in enumerate(sizes.tolist()):
        where, first = f"tree {number}", b"Tree=%d\n" % number
        block = text[at : at + size]
        if not block.startswith(first) or len(block) < size:
            raise ModelTextError(f"{where} does not stand where tree_sizes says")
        yield _tree(block[len(first) :], width, where)
        at += size
    if not text.startswith(_TREES_END, at):
        raise ModelTextError("goes on behind its last tree")


def _tree(block: bytes, width: int, where: str) -> Tree:
    facts = _pairs(block, where)
    unknown = facts.keys() - _KEYS
    if unknown or facts.get(b"is_linear", b"0") != b"0":
        raise ModelTextError(f"{where} is of a kind that is not served")
    leaves = _one(facts, b"num_leaves", where)
    if not 1 <= leaves <= MOST_LEAVES:
        raise ModelTextError(f"{where} should have 1 to {MOST_LEAVES} leaves")
    leaf_value = _finite(facts, b"leaf_value", leaves, where)
    if leaves == 1:
        nothing = np.zeros(0, np.int64)
        return Tree(nothing, nothing, nothing, np.zeros(0), leaf_value)
    nodes = leaves - 1
    features = _integers(facts, b"split_feature", nodes, where)
    left = _integers(facts, b"left_child", nodes, where)
    right = _integers(facts, b"right_child", nodes, where)
    if features.min() < 0 or features.max() >= width:
        raise ModelTextError(f"{where} splits a feature that the model does not have")
    children = np.concatenate((left, right))
    parents = np.concatenate((np.arange(nodes), np.arange(nodes)))
    # Every leaf and every inner node but the root is somebody's child once; this bounds the indices too.
    once = np.array_equal(np.sort(children), np.concatenate((np.arange(-leaves, 0), np.arange(1, nodes))))
    if not once or (children[children >= 0] <= parents[children >= 0]).any():
        raise ModelTextError(
            f"{where} is no tree: a child is out of range, has two parents or comes before its own"
        )
    _check_categories(facts, nodes, where)
    return Tree(features, left, right, _finite(facts, b"internal_value", nodes, where), leaf_value)


def _check_categories(facts: dict[bytes, bytes], nodes: int, where: str) -> None:
    thresholds = _numbers(facts, b"threshold", nodes, where)
    kinds = _integers(facts, b"decision_type", nodes, where)
    categories = _one(facts, b"num_cat", where) if b"num_cat" in facts else 0
    categorical = (kinds & _CATEGORICAL) != 0
    if kinds.min() < 0 or kinds.max() > 15 or not 0 <= categories <= nodes:
        raise ModelTextError(f"{where} has a decision_type or a num_cat that cannot be")
    if categorical.any() and categories == 0:
        raise ModelTextError(f"{where} decides by categories and has none")
    if categories:
        bounds = _integers(facts, b"cat_boundaries", categories + 1, where)
        words = _integers(facts, b"cat_threshold", None, where)
        if bounds[0] != 0 or bounds[-1] != len(words) or (np.diff(bounds) < 0).any():
            raise ModelTextError(f"{where} has categories out of range")
        chosen = thresholds[categorical]
        if len(chosen) and not ((chosen >= 0) & (chosen < categories) & (chosen == np.floor(chosen))).all():
            raise ModelTextError(f"{where} decides by a category that it does not have")


def _pairs(block: bytes, where: str) -> dict[bytes, bytes]:
    """The lines `key=value` of a block; a key that stands twice is refused: readers may take either."""
    found: dict[bytes, bytes] = {}
    for line in block.split(b"\n"):
        key, equals, value = line.partition(b"=")
        if not equals:
            continue
        if key in found:
            raise ModelTextError(f"{where} has {key[:40].decode()} twice")
        found[key] = value
    return found


def _one(facts: dict[bytes, bytes], key: bytes, where: str) -> int:
    return int(_integers(facts, key, 1, where)[0])


def _integers(facts: dict[bytes, bytes], key: bytes, count: int | None, where: str) -> Integers:
    return np.array(_items(facts, key, count, where, _INTEGERS), dtype=np.int64)


def _numbers(facts: dict[bytes, bytes], key: bytes, count: int, where: str) -> Floats:
    """Numbers that may be infinite, as the threshold that parts what is missing from the rest is."""
    items = _items(facts, key, count, where, _NUMBERS)
    try:
        return np.array(items, dtype=np.float64)
    except ValueError:
        raise ModelTextError(f"{where} has no usable {key.decode()}") from None


def _finite(facts: dict[bytes, bytes], key: bytes, count: int, where: str) -> Floats:
    values = _numbers(facts, key, count, where)
    if not np.isfinite(values).all():
        raise ModelTextError(f"{where} has a {key.decode()} that is not finite")
    return values


def _items(
    facts: dict[bytes, bytes], key: bytes, count: int | None, where: str, form: re.Pattern[bytes]
) -> list[bytes]:
    value = facts.get(key, b"")
    items = value.split(b" ") if form.fullmatch(value) else []
    if not items or (count is not None and len(items) != count):
        raise ModelTextError(f"{where} has no usable {key.decode()}")
    return items
