"""What a batch view of a team's own may declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from fraud.declared.declaration import EVENT_TEXTS, Declarations, columns_of
from fraud.declared.figures import Figure

#: Functions of a number, of anything with an identity, of a condition, and of no column.
OF_NUMBERS: Final = frozenset({"sum", "mean", "std", "min", "max"})
OF_VALUES: Final = frozenset({"count_distinct"})
OF_CONDITIONS: Final = frozenset({"count_if"})
OF_NOTHING: Final = frozenset(
    {
        "count", "fraud_count", "fraud_rate", "fraud_risk", "days_genuine_minus_fraud",
        "days_since_first_fraud", "usual_latitude", "usual_longitude", "share",
    }
)  # fmt: skip
FUNCTIONS: Final = OF_NUMBERS | OF_VALUES | OF_CONDITIONS | OF_NOTHING
_DAY_MS: Final = 86_400_000
MOST_DAYS: Final = 366


def batch_problems(declared: Declarations) -> list[tuple[str, str]]:
    """What is wrong with batch views, as (name of the thing, sentence)."""
    columns = columns_of(declared)
    keys = (*EVENT_TEXTS, *(a.name for a in declared.attributes if a.kind in ("text", "category")))
    problems = []
    for view in declared.batches:
        if view.key not in keys:
            problems.append((view.name, f"its key {view.key} is neither a field nor an attribute"))
        if not view.figures:
            problems.append((view.name, "declares no aggregations"))
        problems += [(each.name, text) for each in view.figures for text in _problems_of(each, columns)]
    return problems


def _problems_of(figure: Figure, columns: Mapping[str, str]) -> Iterator[str]:
    if figure.function not in FUNCTIONS:
        yield f"{figure.function} is no function of batch views; there are {', '.join(sorted(FUNCTIONS))}"
        return
    if not _DAY_MS <= figure.window_ms <= MOST_DAYS * _DAY_MS or figure.window_ms % _DAY_MS:
        yield f"its window should be whole days, 1 to {MOST_DAYS}"
    if figure.function in OF_NOTHING:
        if figure.columns:
            yield f"{figure.function} takes no column"
        return
    kind = columns.get(figure.column)
    if kind is None:
        yield f"{figure.column or 'its column'} is neither a field of the event, an attribute nor a measure"
        return
    wanted = (
        "number"
        if figure.function in OF_NUMBERS
        else "value"
        if figure.function in OF_VALUES
        else "condition"
    )
    if kind not in ("any", wanted):
        yield f"{figure.function} needs a {wanted}, and {figure.column} is a {kind}"
