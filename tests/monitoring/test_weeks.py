"""An ISO week has one name, however an operator writes it."""

from __future__ import annotations

import pytest

from monitoring.decisions import canonical_week, week_bounds


@pytest.mark.parametrize(
    ("week", "name"),
    [("2026-W9", "2026-W09"), ("2026-W10", "2026-W10"), ("2026-W53", "2026-W53"), ("2015-W53", "2015-W53")],
)
def test_a_week_has_one_name_however_it_is_written(week: str, name: str) -> None:
    assert canonical_week(week) == name
    assert week_bounds(week) == week_bounds(name)


@pytest.mark.parametrize("week", ["2025-W53", "2026-W0", "2026-W54", "2026-9", "W9"])
def test_a_week_that_there_is_not_is_refused(week: str) -> None:
    with pytest.raises(ValueError, match="is not an ISO week"):
        canonical_week(week)
