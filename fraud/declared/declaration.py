"""What a team can declare beside the standard features, as plain data.

Feast's objects say what there is (`feature_repo.declare` reads them); this is the same as rooms without Feast
read it: attributes of the event, measures, stream views with their aggregates, tables, expressions, services.
Everything here is checked once, by `problems_of`, and identified by a digest of what affects content.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, Literal, get_args

import msgspec
from msgspec import Struct

from fraud.declared.figures import BatchView, Standard

AttributeKind = Literal["category", "text", "number", "flag"]
Function = Literal[
    "count", "count_if", "sum", "mean", "std", "min", "max", "last", "count_distinct", "new", "zscore",
    "seconds_since_last", "seconds_since_first", "distance_km", "speed_kmh",
]  # fmt: skip
FUNCTIONS: Final[tuple[str, ...]] = get_args(Function)
#: Functions of a number, of a condition, of anything with an identity, and of no column at all.
OF_NUMBERS: Final = frozenset({"sum", "mean", "std", "min", "max", "last", "zscore"})
OF_CONDITIONS: Final = frozenset({"count_if"})
OF_VALUES: Final = frozenset({"count_distinct", "new"})
OF_NOTHING: Final = frozenset({"count", "seconds_since_last", "seconds_since_first"})
#: Functions of where an event was.
OF_PLACES: Final = frozenset({"distance_km", "speed_kmh"})
#: Functions that compare with the transaction being scored: without one they are null.
OF_REQUEST: Final = frozenset({"new", "zscore"}) | OF_PLACES
SHORTEST_MS: Final = 60_000
LONGEST_MS: Final = 30 * 86_400_000
MOST_FLAGS: Final = 32
#: What an event has without declaring anything: numbers, and texts (None where optional ones are absent).
EVENT_NUMBERS: Final = ("amount", "latitude", "longitude")
EVENT_TEXTS: Final = (
    "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip", "currency", "channel",
    "merchant_category", "country",
)  # fmt: skip
#: What was decided here on a transaction that is past, a column for measures; None of one not decided here.
DECISION: Final = "decision"
#: Both coordinates of an event, a column for `OF_PLACES`.
LOCATION: Final = "location"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


class Attribute(Struct, frozen=True, omit_defaults=True):
    """A field of the event that the contract does not have: it travels in `attributes`.

    A category has `codes`, by which models see it; a text has at most `most` characters.
    """

    name: str
    kind: AttributeKind
    codes: dict[str, int] = {}
    most: int = 64
    meaning: str = ""

    def problem_with(self, value: object) -> str | None:
        """What `value` should be, if it is not that; None (absent) is always allowed."""
        if value is None:
            return None
        if self.kind == "category" and value not in self.codes:
            return "should be one of " + ", ".join(self.codes)
        if self.kind == "text" and not (isinstance(value, str) and 0 < len(value) <= self.most):
            return f"should be a string of 1 to {self.most} characters"
        if self.kind == "flag" and not isinstance(value, bool):
            return "should be true or false"
        if self.kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
            return "should be a number"
        return None


class Measure(Struct, frozen=True, omit_defaults=True):
    """A column computed from one event by a CEL expression over its fields and attributes."""

    name: str
    expression: str
    meaning: str = ""


class Aggregate(Struct, frozen=True, omit_defaults=True):
    """One feature of a stream view: `function` of `column` over ``[t - window_ms, t)``.

    `nth` is for `last`: 1 is the newest value, 2 the one before it.
    """

    name: str
    function: Function
    column: str
    window_ms: int
    nth: int = 1
    meaning: str = ""


class StreamView(Struct, frozen=True, omit_defaults=True):
    """Aggregates of one entity that the stream keeps up to date at every event.

    `key` is the field of the event that names the entity: one of the contract, or an attribute.
    `known_from_ms` is the event time from which on its states know every event (0: all there ever were).
    """

    name: str
    entity: str
    key: str
    ttl_ms: int
    aggregates: tuple[Aggregate, ...]
    known_from_ms: int = 0
    meaning: str = ""


class TableView(Struct, frozen=True, omit_defaults=True):
    """Another team's table, keyed by an entity: numbers and flags, usable for `ttl_us` after their time."""

    name: str
    entity: str
    key: str
    ttl_us: int
    features: tuple[str, ...]
    meanings: tuple[str, ...] = ()


class Expression(Struct, frozen=True, omit_defaults=True):
    """A feature computed at the request from the event and other features, by a CEL expression."""

    name: str
    expression: str
    meaning: str = ""


class Service(Struct, frozen=True, omit_defaults=True):
    """A feature service: what one generation of models sees, by name."""

    name: str
    features: tuple[str, ...]


class Declarations(Struct, frozen=True, omit_defaults=True):
    """Everything that is declared beside the standard features, and these where they are not as shipped.

    `batches` are the views that Spark computes; their features are served as those of `tables` are. `order`
    holds the names of every own feature that was ever served, oldest first: a place in the served
    vector is never given to another, so that what was logged before stays readable.
    """

    attributes: tuple[Attribute, ...] = ()
    measures: tuple[Measure, ...] = ()
    streams: tuple[StreamView, ...] = ()
    tables: tuple[TableView, ...] = ()
    expressions: tuple[Expression, ...] = ()
    services: tuple[Service, ...] = ()
    order: tuple[str, ...] = ()
    batches: tuple[BatchView, ...] = ()
    standard: Standard | None = None

    @property
    def digest(self) -> str:
        """Identifies what is declared: equal for equal meaning, whatever the order of the files."""
        return hashlib.sha256(encode(self)).hexdigest()[:16]

    def features(self) -> Iterator[tuple[str, str]]:
        """Every own feature with the view that has it ("" for an attribute)."""
        for attribute in self.attributes:
            if attribute.kind != "text":
                yield attribute_feature(attribute), ""
        for stream in self.streams:
            yield from ((aggregate.name, stream.name) for aggregate in stream.aggregates)
        for table in self.tables:
            yield from ((feature, table.name) for feature in table.features)
        yield from ((expression.name, EXPRESSIONS_VIEW) for expression in self.expressions)


NOTHING_DECLARED: Final = Declarations()
#: The on-demand view that holds all expressions.
EXPRESSIONS_VIEW: Final = "own_expressions"
_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Declarations).decode


def attribute_feature(attribute: Attribute) -> str:
    """The name of the feature that an attribute is: its number, its code, or 1 for true."""
    return f"txn_{attribute.name}"


def encode(declared: Declarations) -> bytes:
    """The declarations as canonical JSON."""
    return _encode(declared)


def decode(data: bytes) -> Declarations:
    """The declarations that `encode` wrote; raises msgspec.ValidationError for anything else."""
    return _decode(data)


def named(declared: Declarations) -> dict[str, str]:
    """What each name of an own thing means, in one canonical text: another text is another meaning."""
    found = {each.name: _text(each) for group in (declared.attributes, declared.measures) for each in group}
    measures = {each.name: each.expression for each in declared.measures}
    for stream in declared.streams:
        for each in stream.aggregates:
            source = measures.get(each.column, each.column)
            found[each.name] = f"{stream.key} {each.function} {source} {each.window_ms} {each.nth}"
    for table in declared.tables:
        found |= dict.fromkeys(table.features, f"{table.name} {table.key}")
    for batch in declared.batches:
        for figure in batch.figures:
            sources = [measures.get(column, column) for column in figure.columns]
            found[figure.name] = f"{batch.key} {figure.function} {' '.join(sources)} {figure.window_ms} batch"
    found |= {each.name: each.expression for each in declared.expressions}
    return found


def _text(each: Attribute | Measure) -> str:
    if isinstance(each, Measure):
        return each.expression
    return f"{each.kind} {sorted(each.codes.items())}"


def problems_of(declared: Declarations, standard: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is wrong, as (name of the thing, sentence); `standard` names what is taken, and by whom."""
    problems = [*_bad_names(declared), *_repeated(declared, standard)]
    columns = columns_of(declared)
    for stream in declared.streams:
        if stream.key not in (
            *EVENT_TEXTS,
            *(a.name for a in declared.attributes if a.kind in ("text", "category")),
        ):
            problems.append((stream.name, f"its key {stream.key} is neither a field nor an attribute"))
        flags = {each.column for each in stream.aggregates if each.function in OF_CONDITIONS}
        if len(flags) > MOST_FLAGS:
            problems.append((stream.name, f"counts {len(flags)} conditions; {MOST_FLAGS} fit into a state"))
        for each in stream.aggregates:
            problems += [(each.name, text) for text in _problems_of_aggregate(each, columns)]
    known = {name for name, _ in declared.features()} | standard.keys()
    for service in declared.services:
        problems += [
            (service.name, f"lists {name}, which nothing declares")
            for name in service.features
            if name not in known
        ]
    return problems


def _bad_names(declared: Declarations) -> Iterator[tuple[str, str]]:
    for name in [name for name, _ in declared.features()] + [each.name for each in declared.measures]:
        if not _NAME.fullmatch(name):
            yield name, "should be small letters, digits and _, at most 63"


def _repeated(declared: Declarations, standard: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    features = [name for name, _ in declared.features()]
    measures = [each.name for each in declared.measures]
    attributes = [each.name for each in declared.attributes]
    for name, times in Counter([*features, *measures, *attributes]).items():
        if times > 1:
            yield name, f"is declared {times} times"
        elif name in standard:
            yield name, f"is taken: {standard[name]} has that name"
        elif name in (*EVENT_NUMBERS, *EVENT_TEXTS, DECISION, LOCATION):
            yield name, "is taken: the contract has a field of that name"
    views = [stream.name for stream in declared.streams] + [table.name for table in declared.tables]
    for name, times in Counter(views).items():
        if times > 1:
            yield name, f"is declared {times} times"


def columns_of(declared: Declarations) -> dict[str, str]:
    """Every column of an event with what can be done with it: number, value (text) or any (a measure)."""
    columns = dict.fromkeys(EVENT_NUMBERS, "number") | dict.fromkeys((*EVENT_TEXTS, DECISION), "value")
    columns[LOCATION] = "place"
    kinds = {"number": "number", "text": "value", "category": "value", "flag": "condition"}
    columns |= {each.name: kinds[each.kind] for each in declared.attributes}
    return columns | {each.name: "any" for each in declared.measures}


def _problems_of_aggregate(each: Aggregate, columns: Mapping[str, str]) -> Iterator[str]:
    if each.function not in FUNCTIONS:
        yield f"{each.function} is no function; there are {', '.join(FUNCTIONS)}"
        return
    if not SHORTEST_MS <= each.window_ms <= LONGEST_MS:
        yield "its window should be between 1 minute and 30 days"
    if each.function in OF_NOTHING:
        if each.column:
            yield f"{each.function} takes no column"
        return
    kind = columns.get(each.column)
    if kind is None:
        yield f"{each.column or 'its column'} is neither a field of the event, an attribute nor a measure"
        return
    wanted = next(
        wanted
        for wanted, functions in (
            ("number", OF_NUMBERS),
            ("value", OF_VALUES),
            ("condition", OF_CONDITIONS),
            ("place", OF_PLACES),
        )
        if each.function in functions
    )
    if kind != wanted and (kind != "any" or wanted == "place"):
        yield f"{each.function} needs a {wanted}, and {each.column} is a {kind}"
    if not 1 <= each.nth <= 64 or (each.nth != 1 and each.function != "last"):
        yield "the number of last should be between 1 and 64"
