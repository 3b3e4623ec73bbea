"""The words of a team's own definitions: what Feast has no object for, and short forms of what it has.

A file of one's own (`feature_repo/own/*.py`, or the folder of `TOLLGATE_FEATURES`) is read by `feast apply`.
It holds Feast's objects, as any Feast repository does, and these:

    attribute   a field of the event that the contract does not have; sent in `attributes`
    measure     a column derived from one event by a CEL expression
    stream_view a StreamFeatureView whose aggregations the stream keeps up to date at every event
    table_view  a FeatureView on another team's parquet files
    expression  an on-demand feature by a CEL expression over the event and features of views
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FunctionType
from typing import Any, Final, cast

from feast import Entity, FeatureView, Field, OnDemandFeatureView, PushSource, RequestSource
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from feast.types import Bool, Bytes, Float64, String

from feature_repo.sources import BY_DATE, EVENT, KNOWN, LakeSource, lake_source
from fraud.declared.declaration import (
    EVENT_NUMBERS,
    Attribute,
    Expression,
    Measure,
    attribute_feature,
)
from fraud.features.entities import VELOCITY_TTL
from stores.declared import state_feature
from stores.expressions import Expression as Compiled
from stores.expressions import ExpressionError
from stores.settings import settings

__all__ = [
    "Aggregation", "attribute", "category", "deviation", "each", "expression", "flag", "measure", "number",
    "rate", "ratio", "stream_view", "table_view", "text",
]  # fmt: skip

#: Where a stream view's declaration notes what Feast's aggregations do not hold.
MEANINGS: Final = "tollgate.meaning."
#: The tag of views whose features the stream's states give.
STREAM_TAG: Final = "tollgate.stream"


class DeclarationError(ValueError):
    """Definitions that cannot be used: every problem, each with the file and line it stands in."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass
class Collected:
    """What files declared beside Feast's objects, and where each name stands."""

    attributes: list[Attribute] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    expressions: list[Expression] = field(default_factory=list)
    where: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def place(self, name: str) -> str:
        """Where `name` is declared, for errors."""
        return self.where.get(name, "(somewhere)")


_collected = Collected()


def begin() -> Collected:
    """Collect anew, for one reading of all files."""
    global _collected  # files declare by calling, as Feast's own objects do
    _collected = Collected()
    return _collected


def note(name: str) -> None:
    """Remember where `name` is declared: in the caller's caller."""
    frame: Any = sys._getframe(2)
    while frame.f_code.co_filename == __file__:  # one short form that calls another
        frame = frame.f_back
    _collected.where.setdefault(name, f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")


@dataclass(frozen=True, slots=True)
class Kind:
    """What values an attribute has."""

    name: str
    codes: dict[str, int] = field(default_factory=dict)
    most: int = 64


def category(**codes: int) -> Kind:
    """One of these words; models see its number."""
    return Kind("category", codes)


def text(most: int = 64) -> Kind:
    """Text of at most `most` characters: to key an entity by, to count different values of, for rules."""
    return Kind("text", most=most)


def number() -> Kind:
    """A number."""
    return Kind("number")


def flag() -> Kind:
    """True or false."""
    return Kind("flag")


@dataclass(frozen=True, slots=True)
class OwnAttribute:
    """A declared attribute. `view` is the on-demand view of its feature, None for a text."""

    name: str
    view: OnDemandFeatureView | None


def attribute(name: str, kind: Kind, meaning: str = "") -> OwnAttribute:
    """Declare a field of the event. Clients send it as `attributes.<name>`; it may always be absent."""
    note(name)
    made = Attribute(name, cast("Any", kind.name), kind.codes, kind.most, meaning)
    _collected.attributes.append(made)
    if kind.name == "text":
        return OwnAttribute(name, None)
    feature = attribute_feature(made)
    _collected.where.setdefault(feature, _collected.where[name])
    codes = {word: float(code) for word, code in kind.codes.items()}
    dtype: Any = {"category": String, "number": Float64, "flag": Bool}[kind.name]
    return OwnAttribute(
        name,
        _computed(
            feature, meaning or f"attribute {name}", [_event(feature, [Field(name=name, dtype=dtype)])],
            "stores.expressions", f"codes_of({name!r}, {feature!r}, {codes!r}, inputs)",
        ),
    )  # fmt: skip


def measure(name: str, expression: str, meaning: str = "") -> str:
    """Declare a column of every event, for aggregations; returns its name."""
    note(name)
    _collected.measures.append(Measure(name, expression, meaning))
    return name


def expression(
    name: str, expression: str, *, of: Iterable[FeatureView] = (), meaning: str = ""
) -> OnDemandFeatureView:
    """An on-demand feature: `expression` over fields of the event and the features of the views in `of`.

    It is null wherever one of its inputs is, and where evaluating fails. Amounts are reference cents.
    """
    note(name)
    _collected.expressions.append(Expression(name, expression, meaning))
    try:
        variables = Compiled(expression).variables
    except ExpressionError as error:
        _collected.problems.append(f"{_collected.place(name)}: {name}: {error}")
        variables = ()
    sources: list[Any] = []
    for view in of:
        used = [each.name for each in view.features if each.name in variables]
        if used:
            sources.append(view[used])
    taken = {each.name for source in sources for each in source.features}
    own = [each for each in variables if each not in taken]
    numbers = {*EVENT_NUMBERS, *[each.name for each in _collected.attributes if each.kind == "number"]}
    flags = {each.name for each in _collected.attributes if each.kind == "flag"}
    fields = [
        Field(name=each, dtype=Float64 if each in numbers else Bool if each in flags else String)
        for each in own
    ]
    if fields or not sources:
        sources.insert(0, _event(name, fields or [Field(name="amount", dtype=Float64)]))
    return _computed(
        name,
        meaning or expression,
        sources,
        "stores.expressions",
        f"column_of({name!r}, {expression!r}, inputs)",
    )


def ratio(
    name: str, above: str, below: str, *, of: Iterable[FeatureView] = (), meaning: str = ""
) -> OnDemandFeatureView:
    """`above` divided by `below`, both features or numbers of the event: null where there is nothing to
    divide by."""
    return expression(name, f"{above} / {below}", of=of, meaning=meaning or f"{above} per {below}")


def deviation(
    name: str, value: str, mean: str, std: str, *, of: Iterable[FeatureView] = (), meaning: str = ""
) -> OnDemandFeatureView:
    """How many standard deviations `value` lies above a `mean`, such as a profile's (a z-score): null where
    `std` is 0."""
    meaning = meaning or f"{value} against {mean}"
    return expression(name, f"({value} - {mean}) / {std}", of=of, meaning=meaning)


def rate(
    name: str, count: str, over: timedelta, usual: str, usually_over: timedelta, *,
    of: Iterable[FeatureView] = (), meaning: str = "",
) -> OnDemandFeatureView:  # fmt: skip
    """How much faster events come than they usually do: `count` of the last `over`, against `usual` many in
    `usually_over`. 1 is as usual; null where there usually are none."""
    times = usually_over / over
    meaning = meaning or f"{count} against {usual}"
    return expression(name, f"{count} * {times!r} / {usual}", of=of, meaning=meaning)


def _event(name: str, fields: list[Field]) -> RequestSource:
    """The fields of the event that a feature looks at."""
    return RequestSource(name=f"{name}_event", schema=fields)


def _computed(name: str, meaning: str, sources: list[Any], module: str, call: str) -> OnDemandFeatureView:
    """An on-demand view of one feature, by a function that Feast can rebuild from its text."""
    function = f"compute_{name}"
    source = (
        f"def {function}(inputs):\n    from {module} import {call.partition('(')[0]}\n\n    return {call}\n"
    )
    namespace: dict[str, Any] = {}
    exec(compile(source, f"<{name}>", "exec"), namespace)
    return OnDemandFeatureView(
        name=name, sources=sources, schema=[Field(name=name, dtype=Float64)], mode="python",
        udf=cast("FunctionType", namespace[function]), udf_string=source, description=meaning,
    )  # fmt: skip


def each(function: str, column: str, **windows: timedelta) -> list[Aggregation]:
    """The same aggregation over several windows: `each("sum", "amount", card_sum_7d=timedelta(days=7))`."""
    return [
        Aggregation(column=column, function=function, time_window=window, name=name)
        for name, window in windows.items()
    ]


def stream_view(
    name: str,
    entity: Entity,
    aggregations: Sequence[Aggregation],
    *,
    ttl: timedelta = VELOCITY_TTL,
    meanings: dict[str, str] | None = None,
    description: str = "",
) -> StreamFeatureView:
    """Aggregates of transactions by `entity`, up to date at every event, each a feature of the view.

    The entity's join key is the field of the event, or the attribute, that names it. Aggregations have a
    `column` (a field, an attribute or a measure; none for `count`, "location" for distances), a `function` of
    `fraud.declared.declaration`, a `time_window` of 1 minute to 30 days and a `name`.
    """
    note(name)
    for one in aggregations:
        note(one.name)
    key = entity.join_key
    log = lake_source(f"{name}_log", f"velocity/{name}", BY_DATE, "every state, from when it was visible")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "experimental", on every construction
        view = _stream_view(name, entity, key, aggregations, ttl, log, meanings or {}, description)
    # A service that lists the whole view serves its aggregates, not the bytes they come from.
    return cast("StreamFeatureView", view[[one.name for one in aggregations]])


def _stream_view(
    name: str, entity: Entity, key: str, aggregations: Sequence[Aggregation], ttl: timedelta, log: LakeSource,
    meanings: dict[str, str], description: str,
) -> StreamFeatureView:  # fmt: skip
    return StreamFeatureView(
        name=name,
        entities=[entity],
        ttl=ttl,
        source=PushSource(name=f"{name}_updates", batch_source=log),
        schema=[
            Field(name=key, dtype=String),
            Field(name=state_feature(name), dtype=Bytes, description="packed state (fraud.declared.state)"),
            *[
                Field(name=one.name, dtype=Float64, description=_meaning(one, meanings))
                for one in aggregations
            ],
        ],
        aggregations=list(aggregations),
        timestamp_field=EVENT,
        tags={STREAM_TAG: key, **{f"{MEANINGS}{name}": text for name, text in meanings.items()}},
        description=description or f"aggregates of transactions by {entity.name}",
    )


def _meaning(one: Aggregation, meanings: dict[str, str]) -> str:
    known = meanings.get(one.name)
    return known or f"{one.function} of {one.column or 'transactions'} over {one.time_window}"


def table_view(
    name: str,
    entity: Entity,
    path: Path | str,
    schema: Sequence[Field],
    *,
    ttl: timedelta,
    description: str = "",
) -> FeatureView:
    """A table of another team's: parquet files under `path` with the entity's join key, `event_timestamp`
    (when a row holds from), `created_timestamp` (when it was known) and the columns of `schema`. A relative
    path lies in the lake."""
    note(name)
    for one in schema:
        note(one.name)
    folder = Path(path) if Path(path).is_absolute() else settings().lake / path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "experimental", on every construction
        source = LakeSource(
            name=f"{name}_table", path=str(folder), file_format="parquet", timestamp_field=EVENT,
            created_timestamp_column=KNOWN, description=description,
        )  # fmt: skip
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=ttl,
        schema=[Field(name=entity.join_key, dtype=String), *schema],
        source=source,
        description=description,
    )  # fmt: skip


def function_of(one: Aggregation) -> tuple[str, int]:
    """The function of an aggregation and its number: `last:3` is the third newest value."""
    name, _, nth = str(one.function).partition(":")
    return name, int(nth) if nth.isdigit() else 1
