"""What is declared here beside the standard features, as every room reads it.

`feast apply` writes the declarations as one document (`plan_path`); a process reads it once, when it starts.
Without a document nothing is declared, and the platform has the standard features alone. Derived from it:
the served vector, the columns of an event that stream views look at, and which attributes a door lets in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import nan
from pathlib import Path
from typing import Any, Final

import msgspec

from fraud.contract.transaction import ContractError, Transaction
from fraud.declared.declaration import (
    DECISION,
    EVENT_NUMBERS,
    EVENT_TEXTS,
    NOTHING_DECLARED,
    Attribute,
    Declarations,
    Measure,
    attribute_feature,
    decode,
)
from fraud.declared.figures import BatchView
from fraud.declared.layout import Layout, layout_of
from fraud.declared.seen import DeclaredSeen
from fraud.features.entities import ENTITIES
from fraud.features.feature_list import VECTOR
from fraud.features.plan import STANDARD
from fraud.state.last_seen import KEY_BYTES
from fraud.state.observation import stable_hash
from stores.attributes import attributes_of
from stores.expressions import Expression
from stores.settings import Settings, settings

_NO_KEY: Final = bytes(KEY_BYTES)
_HIGH_HALF: Final = ~0xFFFFFFFF
_FIELDS: Final = tuple(name for name in EVENT_TEXTS)


def state_feature(view: str) -> str:
    """What the state of a stream view is called in Feast, in the online store and in the lake."""
    return f"{view}_state"


class DeclaredError(ValueError):
    """A document of declarations that cannot be read; the text says what to do."""


@dataclass(frozen=True)
class Declared:
    """The declarations of this process and what follows from them."""

    declarations: Declarations = NOTHING_DECLARED

    @cached_property
    def digest(self) -> str:
        return self.declarations.digest

    @cached_property
    def vector(self) -> tuple[str, ...]:
        """The served row: the standard features, then every own one that was ever served, in order."""
        return (*VECTOR, *self.declarations.order)

    @cached_property
    def attributes(self) -> dict[str, Attribute]:
        return {each.name: each for each in self.declarations.attributes}

    @cached_property
    def meanings(self) -> dict[str, str]:
        """What each own feature means, in words."""
        declarations = self.declarations
        found = {
            attribute_feature(each): each.meaning or f"attribute {each.name}"
            for each in declarations.attributes
        }
        for stream in declarations.streams:
            found |= {each.name: each.meaning or each.name for each in stream.aggregates}
        for table in declarations.tables:
            words = table.meanings or ("",) * len(table.features)
            found |= {
                name: meaning or f"{name} of {table.name}"
                for name, meaning in zip(table.features, words, strict=True)
            }
        return found | {each.name: each.meaning or each.expression for each in declarations.expressions}

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """By stream view, in order: their places in the stream follow those of `ENTITIES`."""
        return tuple([layout_of(view) for view in self.declarations.streams])

    @cached_property
    def measures(self) -> dict[str, Expression]:
        return {each.name: Expression(each.expression) for each in self.declarations.measures}

    @cached_property
    def observers(self) -> tuple[Observer, ...]:
        return tuple([Observer(layout, self) for layout in self.layouts])

    def admit(self, transaction: Transaction) -> None:
        """Refuse attributes that are not declared, or not what they are declared to be: ContractError."""
        for name, value in (transaction.attributes or {}).items():
            known = self.attributes.get(name)
            if known is None:
                raise ContractError(f"attributes.{name}", "is not declared")
            problem = known.problem_with(value)
            if problem:
                raise ContractError(f"attributes.{name}", problem)

    def event_values(
        self, transaction: Transaction, amount_reference: int, decision: str | None = None
    ) -> dict[str, Any]:
        """The columns of one event by name, None where absent; amounts in reference cents. Of a transaction
        that is being decided there is no `decision` yet."""
        values: dict[str, Any] = {name: getattr(transaction, name) for name in _FIELDS}
        values[DECISION] = decision
        values["amount"] = float(amount_reference)
        values["latitude"], values["longitude"] = transaction.latitude, transaction.longitude
        return self._with_attributes(values, transaction.attributes or {})

    def row_values(self, row: Mapping[str, Any], decision: str | None = None) -> dict[str, Any]:
        """The same of a row of the lake or of the decision log."""
        values: dict[str, Any] = {name: row.get(name) for name in _FIELDS}
        values[DECISION] = decision
        values["amount"] = float(row["amount_reference"])
        values["latitude"], values["longitude"] = row.get("latitude"), row.get("longitude")
        text = row.get("attributes")
        return self._with_attributes(values, attributes_of(text) or {})

    def _with_attributes(self, values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        for name, attribute in self.attributes.items():
            value = given.get(name)
            if attribute.problem_with(value) is not None:  # of another declaration
                value = None
            if attribute.kind == "number" and value is not None:
                value = float(value)
            values[name] = value
        for name, measure in self.measures.items():
            values[name] = measure.of(values)
        return values

    def attribute_numbers(self, values: Mapping[str, Any]) -> dict[str, float]:
        """The features that attributes are: a number, a category's code, 1.0 for true; NaN where absent."""
        found = {}
        for name, attribute in self.attributes.items():
            value = values[name]
            if attribute.kind == "category":
                value = attribute.codes.get(value)
            if attribute.kind != "text":
                found[attribute_feature(attribute)] = nan if value is None else float(value)
        return found


def batch_views() -> tuple[BatchView, ...]:
    """Every batch view that Spark computes here: the platform's own, then a team's."""
    return tuple([view for view in (*STANDARD.batches, *declared().declarations.batches) if view.figures])


def batch_view_in(folder: str) -> BatchView:
    """The batch view whose rows lie in `folder` of the lake's profiles; ValueError for none."""
    views = {view.folder: view for view in batch_views()}
    if folder not in views:
        raise ValueError(f"{folder} is no batch view; there are {', '.join(views)}")
    return views[folder]


class Observer:
    """What an event tells the states of one stream view: its entity, and a record to add."""

    def __init__(self, layout: Layout, declared: Declared) -> None:
        self.layout = layout
        self.place = len(ENTITIES) + declared.layouts.index(layout)
        self.shape = layout.shape
        self._pack = layout.record.pack

    def key(self, values: Mapping[str, Any]) -> str | None:
        """The entity's value of an event, None where the event names none."""
        value = values[self.layout.key]
        return None if value is None else text_of(value)

    def seen(self, event_ms: int, transaction_key: int, values: Mapping[str, Any]) -> DeclaredSeen:
        """The observation of an event; `transaction_key` is the hash of its transaction's id."""
        layout = self.layout
        flags = 0
        for place, name in enumerate(layout.flags):
            if values[name] is True:
                flags |= 1 << place
        keys = [_key(values[name]) for name in layout.tables]
        word = transaction_key & _HIGH_HALF | flags
        return DeclaredSeen(
            event_ms, self._pack(event_ms, word, *[number_of(values[name]) for name in layout.values], *keys)
        )

    def asked(self, values: Mapping[str, Any]) -> tuple[list[int], list[float]]:
        """What the transaction being scored has in the tables' and values' columns (`read_states`)."""
        layout = self.layout
        hashes = [0 if values[name] is None else stable_hash(text_of(values[name])) for name in layout.tables]
        return hashes, [number_of(values[name]) for name in layout.values]


def served_vector() -> tuple[str, ...]:
    """The names of the served row in this process, standard features first."""
    return declared().vector


def number_of(value: object) -> float:
    """A column's value as a number, NaN for what is none."""
    return float(value) if isinstance(value, bool | int | float) else nan


def text_of(value: object) -> str:
    """A column's value as what tells it apart from others."""
    return value if isinstance(value, str) else repr(value)


class _Keys(dict[object, bytes]):
    """The hash bytes that tables keep of a value, computed once for so many values."""

    def __missing__(self, value: str) -> bytes:
        if len(self) >= _MOST_KEYS:
            self.clear()
        key = self[value] = stable_hash(value).to_bytes(8, "little", signed=True)[8 - KEY_BYTES :]
        return key


_MOST_KEYS: Final = 1 << 17
_keys: Final = _Keys()


def _key(value: object) -> bytes:
    if value is None:
        return _NO_KEY
    return _keys[value if isinstance(value, str) else repr(value)]


def event_columns(declarations: Declarations) -> tuple[set[str], set[str]]:
    """Names that expressions over an event may use: numbers and flags, and texts."""
    numbers = {*EVENT_NUMBERS, *(each.name for each in declarations.attributes if each.kind == "number")}
    texts = {*EVENT_TEXTS, *(a.name for a in declarations.attributes if a.kind in ("text", "category"))}
    return numbers, texts


def measure_named(declarations: Declarations, name: str) -> Measure:
    """The measure of that name; KeyError without one."""
    for each in declarations.measures:
        if each.name == name:
            return each
    raise KeyError(name)


def plan_path(chosen: Settings) -> Path:
    """Where `feast apply` writes the declarations, and every process reads them."""
    return chosen.feast.plan or chosen.home / "features" / "declared.json"


def declared(chosen: Settings | None = None) -> Declared:
    """What is declared; raises DeclaredError for a document that this program cannot read."""
    path = plan_path(chosen or settings())
    try:
        known = path.stat().st_mtime_ns
    except FileNotFoundError:
        return NOTHING
    return _read(path, known)


#: Nothing is declared beside the standard features.
NOTHING: Final = Declared()


@lru_cache(maxsize=4)
def _read(path: Path, _: int) -> Declared:
    try:
        return Declared(decode(path.read_bytes()))
    except msgspec.ValidationError as error:
        raise DeclaredError(f"{path}: {error}; run `feast apply` with this version") from None
    except msgspec.DecodeError as error:
        raise DeclaredError(f"{path} is damaged ({error}); run `feast apply` again") from None
