"""What the platform's own views may declare: what their fast loops and packed states can do.

What they cannot is declared in a view of its own, whose states are laid out for it (`fraud.declared.layout`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from fraud.declared.batch import MOST_DAYS
from fraud.declared.batch import OF_NUMBERS as BATCH_NUMBERS
from fraud.declared.batch import OF_VALUES as BATCH_VALUES
from fraud.declared.declaration import EVENT_TEXTS
from fraud.declared.figures import Figure, Standard
from fraud.features.entities import (
    ENTITY_BY_NAME,
    HABITS_REMEMBERED_MS,
    REMEMBERED_MS,
    Entity,
    table_of,
)
from fraud.features.functions import FIELDS, OF_BATCH, OF_REQUESTS, OF_STATES

_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
_OF_AMOUNTS: Final = ("sum", "mean", "std", "zscore")
_OTHERWISE: Final = "declare it in a view of its own (feature_repo.declare.stream_view)"
#: Functions of the request that compare, with how many columns of views.
_COMPARE: Final = {"over": 1, "deviation": 2, "away": 2, "rate": 2}


def standard_problems(standard: Standard) -> list[tuple[str, str]]:
    """What is wrong, as (name of the feature, sentence)."""
    figures = [
        *[each for view in standard.batches for each in view.figures],
        *[each for view in standard.velocities for each in view.figures],
        *standard.requests,
    ]
    problems = [
        (name, f"is declared {times} times")
        for name, times in Counter([each.name for each in figures]).items()
        if times > 1
    ]
    for batch in standard.batches:
        problems += [(each.name, text) for each in batch.figures for text in _of_batch(each)]
    for view in standard.velocities:
        entity = ENTITY_BY_NAME[view.entity]
        problems += [(each.name, text) for each in view.figures for text in _of_state(entity, each)]
        asked = Counter([each.column for each in view.figures if each.function == "new"])
        problems += [
            (view.entity, f"asks twice whether {column} is new: a state answers for one window; {_OTHERWISE}")
            for column, times in asked.items()
            if times > 1
        ]
    profile = {each.name for view in standard.batches for each in view.figures}
    counts = {each.name for view in standard.velocities for each in view.figures if each.function == "count"}
    return problems + [
        (each.name, text) for each in standard.requests for text in _of_request(each, profile, counts)
    ]


def meanings_of(standard: Standard) -> dict[str, str]:
    """What each feature means, in one canonical text: another text is another meaning."""
    views = [(view.key, view.figures) for view in standard.batches]
    views += [(view.entity, view.figures) for view in standard.velocities]
    return {
        each.name: f"{each.function}({', '.join(each.columns)}) of {of} over {each.window_ms} ms"
        for of, figures in (*views, ("the transaction", standard.requests))
        for each in figures
    }


def changed_meanings(before: Standard, after: Standard) -> list[tuple[str, str]]:
    """Features that would mean something else under the name they had."""
    old = meanings_of(before)
    return [
        (name, f"meant `{old[name]}` and would mean `{text}`: give what is new a name of its own")
        for name, text in meanings_of(after).items()
        if old.get(name, text) != text
    ]


def _of_batch(figure: Figure) -> Iterator[str]:
    if figure.function not in OF_BATCH:
        yield f"{figure.function} is no function of batch views; there are {', '.join(sorted(OF_BATCH))}"
    if not _DAY_MS <= figure.window_ms <= MOST_DAYS * _DAY_MS or figure.window_ms % _DAY_MS:
        yield f"its window should be whole days, 1 to {MOST_DAYS}"
    if figure.function in BATCH_NUMBERS and figure.column not in ("amount", "latitude", "longitude"):
        yield f"{figure.function} needs a number of the event, not {figure.column or 'nothing'}"
    if figure.function in BATCH_VALUES and figure.column not in EVENT_TEXTS:
        yield f"{figure.function} needs a field of the event, not {figure.column or 'nothing'}"


def _of_state(entity: Entity, figure: Figure) -> Iterator[str]:
    function, column, window = figure.function, figure.column, figure.window_ms
    if function not in OF_STATES:
        yield f"{function} is nothing that a standard state is read for: {_OTHERWISE}"
        return
    if function in (*_OF_AMOUNTS, "count", "count_distinct") and not _MINUTE_MS <= window <= REMEMBERED_MS:
        yield f"its window should be between 1 minute and 24 hours, which is what states hold: {_OTHERWISE}"
    if function in _OF_AMOUNTS and column != "amount":
        yield f"states of the {entity.name} hold amounts, not {column}: {_OTHERWISE}"
    if function == "count_distinct" and not 0 <= table_of(entity, column) < len(entity.counterparties):
        yield f"states of the {entity.name} do not remember {column}: {_OTHERWISE}"
    if function == "new":
        table = table_of(entity, column)
        longest = REMEMBERED_MS if table < len(entity.counterparties) else HABITS_REMEMBERED_MS
        if table < 0:
            yield f"states of the {entity.name} do not remember {column}: {_OTHERWISE}"
        elif not 0 < window <= longest:
            yield f"its window should be at most {longest // 3_600_000} hours: {_OTHERWISE}"
    if function == "seconds_since_first" and not 0 < window <= HABITS_REMEMBERED_MS:
        yield "its window should be at most 30 days"
    if function in ("distance", "speed") and not entity.located:
        yield f"states of the {entity.name} do not remember places"


def _of_request(figure: Figure, profile: set[str], counts: set[str]) -> Iterator[str]:
    function, columns = figure.function, figure.columns
    if function not in OF_REQUESTS:
        yield f"{function} is no function of the request; there are {', '.join(OF_REQUESTS)}"
        return
    if function in _COMPARE:
        if len(columns) != _COMPARE[function]:
            yield f"{function} takes {_COMPARE[function]} columns"
        wanted = [counts, profile] if function == "rate" else [profile, profile]
        for name, known in zip(columns, wanted, strict=False):
            if name not in known:
                yield f"looks at {name}, which nothing declares"
    elif len(columns) != 1 or columns[0] not in FIELDS:
        yield f"{function} takes one field of the transaction: {', '.join(FIELDS)}"
