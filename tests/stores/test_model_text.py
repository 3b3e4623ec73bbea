"""The text format of a model: what LightGBM writes passes, what it must not be given does not."""

from __future__ import annotations

import re

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.model_text import ModelTextError, Tree, read_trees

WIDTH = 12


def trained(trees: int = 20, **parameters: object) -> lightgbm.Booster:
    """A model of plain and categorical splits."""
    random = np.random.default_rng(4)
    rows = random.normal(size=(3000, WIDTH))
    rows[:, 3] = random.integers(0, 40, len(rows))
    rows[random.random(rows.shape) < 0.1] = np.nan
    label = (np.nan_to_num(rows[:, 0] * rows[:, 1] + rows[:, 3] % 3) > 1).astype(int)
    chosen = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5} | parameters
    return lightgbm.train(chosen, lightgbm.Dataset(rows, label, categorical_feature=[3]), trees)


TEXT = trained().model_to_string().encode()


def trees_of(text: bytes, width: int = WIDTH) -> list[Tree]:
    return list(read_trees(text, width))


def changed(key: str, place: int, value: str, tree: int = 1) -> bytes:
    """TEXT with one item of one tree changed, and the sizes made right."""
    head, *blocks = re.split(r"(?=Tree=\d+\n)", TEXT.decode())
    block, end, tail = blocks[-1].partition("end of trees")
    blocks[-1] = block
    lines = blocks[tree].split("\n")
    at = next(index for index, line in enumerate(lines) if line.startswith(f"{key}="))
    items = lines[at].removeprefix(f"{key}=").split(" ")
    items[place] = value
    lines[at] = f"{key}={' '.join(items)}"
    blocks[tree] = "\n".join(lines)
    sizes = " ".join(str(len(block)) for block in blocks)
    head = re.sub(r"tree_sizes=.*", f"tree_sizes={sizes}", head)
    return (head + "".join(blocks) + end + tail).encode()


def test_trees_are_those_that_lightgbm_dumps() -> None:
    dumped = lightgbm.Booster(model_str=TEXT.decode()).dump_model()["tree_info"]
    trees = trees_of(TEXT)
    assert len(trees) == len(dumped) == 20

    def compare(tree: Tree, node: dict[str, object], index: int) -> int:
        if index < 0:
            assert node["leaf_index"] == ~index
            assert node["leaf_value"] == tree.leaf_value[~index]
            return 1
        assert node["split_index"] == index
        assert node["split_feature"] == tree.split_feature[index]
        assert node["internal_value"] == pytest.approx(tree.internal_value[index], rel=1e-5)
        return compare(tree, node["left_child"], int(tree.left_child[index])) + compare(  # type: ignore[arg-type]
            tree,
            node["right_child"],
            int(tree.right_child[index]),  # type: ignore[arg-type]
        )

    for tree, info in zip(trees, dumped, strict=True):
        assert compare(tree, info["tree_structure"], 0) == info["num_leaves"] == len(tree.leaf_value)


def test_a_tree_of_one_leaf_is_a_tree() -> None:
    text = trained(2, min_data_in_leaf=2999).model_to_string().encode()
    assert [len(tree.leaf_value) for tree in trees_of(text)] == [1] * text.count(b"Tree=")


def test_the_changes_below_start_from_a_sound_model() -> None:
    assert len(trees_of(changed("split_feature", 0, "2"))) == 20


@pytest.mark.parametrize(
    ("key", "place", "value", "complaint"),
    [
        ("split_feature", 0, "12", "does not have"),
        ("split_feature", 0, "-1", "does not have"),
        ("split_feature", 3, "4294967295", "does not have"),
        ("split_feature", 3, "99999999999", "no usable split_feature"),
        ("split_feature", 3, "1_1", "no usable split_feature"),
        ("left_child", 0, "1000000", "is no tree"),
        ("left_child", 0, "-1000000", "is no tree"),
        ("left_child", 1, "0", "is no tree"),
        ("right_child", 2, "1", "is no tree"),
        ("left_child", 0, "1 2", "no usable left_child"),
        ("leaf_value", 0, "nan", "no usable leaf_value"),
        ("leaf_value", 0, "1e999", "not finite"),
        ("threshold", 0, "nan", "no usable threshold"),
        ("num_leaves", 0, "2000000000", "leaves"),
        ("num_leaves", 0, "0", "leaves"),
        ("num_leaves", 0, "30", "no usable"),
        ("decision_type", 0, "-1", "decision_type"),
        ("decision_type", 2, "1", "categor"),
        ("num_cat", 0, "999999", "num_cat"),
        ("is_linear", 0, "1", "not served"),
        ("shrinkage", 0, "1\nleft_child=0", "twice"),
        ("shrinkage", 0, "1\nleaf_features=0", "not served"),
    ],
)
def test_what_would_lead_lightgbm_astray_is_refused(key: str, place: int, value: str, complaint: str) -> None:
    with pytest.raises(ModelTextError, match=complaint):
        trees_of(changed(key, place, value))


def test_a_cycle_of_nodes_that_each_have_one_parent_is_refused() -> None:
    text = changed("left_child", 1, "1")
    with pytest.raises(ModelTextError, match="is no tree"):
        trees_of(text)


def test_sizes_that_point_elsewhere_and_widths_that_are_not_the_manifests_are_refused() -> None:
    sizes = re.search(rb"tree_sizes=(\d+)", TEXT)
    assert sizes is not None
    for wrong in (b"1", b"99999999", b"-5", sizes[1] + b"0"):
        with pytest.raises(ModelTextError):
            trees_of(TEXT.replace(sizes[0], b"tree_sizes=" + wrong, 1))
    for width in (WIDTH - 1, WIDTH + 1):
        with pytest.raises(ModelTextError, match=f"{width} features"):
            trees_of(TEXT, width)


@pytest.mark.parametrize(
    "text", [b"", b"\0", b"tree\n", b"tree\r\n", "träe\n".encode(), b"num_class=1\n\nTree=0\n"]
)
def test_what_is_no_model_at_all_is_refused(text: bytes) -> None:
    with pytest.raises(ModelTextError):
        trees_of(text)


@given(place=st.integers(0, len(TEXT) - 1), cut=st.integers(0, 40), put=st.binary(max_size=40))
def test_any_change_is_a_sound_model_or_a_complaint(place: int, cut: int, put: bytes) -> None:
    text = TEXT[:place] + put + TEXT[place + cut :]
    try:
        trees = trees_of(text)
    except ModelTextError:
        return
    for tree in trees:
        nodes, leaves = len(tree.split_feature), len(tree.leaf_value)
        assert nodes == leaves - 1
        children = np.concatenate((tree.left_child, tree.right_child))
        assert ((children >= -leaves) & (children < nodes)).all()
        assert ((tree.split_feature >= 0) & (tree.split_feature < WIDTH)).all()
