"""How pytest asks tests about a mutant: the quickest first, and without making a failure small.

A mutant is dead at its first failing test, so the order of the tests is most of the time. Hypothesis, which
looks for a small example once it has found one, stops at the first; and it draws the same examples for each
mutant, so that a run can be repeated.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path

import hypothesis
import pytest

#: Where mutmut keeps how long each test took; it runs the tests in a folder below.
_STATS = Path("mutmut-stats.json")


hypothesis.settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)


def pytest_configure() -> None:
    gc.freeze()  # what a fork has from its parent is nobody's garbage


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    took = json.loads(_STATS.read_text())["duration_by_test"] if _STATS.exists() else {}
    items.sort(key=lambda item: took.get(item.nodeid, 0.0))
