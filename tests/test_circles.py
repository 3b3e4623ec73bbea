"""No circles of files: whatever a module imports, at the top or inside a function, never leads back to it.

import-linter compares neighbours within a folder, so a circle that runs across folders can pass it. Here every
file of every room stands in one graph, which must have a topological order.
"""

from __future__ import annotations

from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path

import grimp
import pytest

_LINTER = Path(__file__).parents[1] / ".importlinter"


def in_circles(imports: Mapping[str, set[str]]) -> list[str]:
    """The files that no topological order can place: those of a circle, and those between two circles.

    Files that import nothing, and files that nothing imports, are put away until none is left to put away.
    """
    left = {file: {each for each in imported if each in imports} for file, imported in imports.items()}
    while True:
        leaves = {file for file, imported in left.items() if not imported}
        roots = set(left) - {each for imported in left.values() for each in imported}
        if not (gone := leaves | roots):
            break
        left = {file: imported - gone for file, imported in left.items() if file not in gone}
    return sorted(left)


@pytest.mark.parametrize(
    ("imports", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, ["a", "b"]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"elsewhere"}}, ["a", "b", "c"]),
    ],
)
def test_a_circle_is_found_however_long(imports: dict[str, set[str]], found: list[str]) -> None:
    assert in_circles(imports) == found


def test_no_file_imports_itself_by_way_of_others() -> None:
    rules = ConfigParser()
    rules.read(_LINTER)
    rooms = rules["importlinter"]["root_packages"].split()
    graph = grimp.build_graph(*rooms, exclude_type_checking_imports=True, cache_dir=None)
    imports = {file: set(graph.find_modules_directly_imported_by(file)) for file in graph.modules}
    assert len(imports) > 300 and imports["bentos.service"], "the graph is not that of the rooms"
    assert in_circles(imports) == []
