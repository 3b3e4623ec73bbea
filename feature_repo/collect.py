"""A team's own definitions: read from their files, held against the platform's, written as one document.

Every problem is reported at once, each with the file and line of what it is about, before anything changes.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from feast import Entity, FeatureService, FeatureView, OnDemandFeatureView
from feast.data_source import DataSource
from feast.stream_feature_view import StreamFeatureView
from feast.types import Bool, Float32, Float64, Int32, Int64
from msgspec.structs import replace

from feature_repo import standard
from feature_repo.batch import BATCH_TAG, batch_of
from feature_repo.declare import STREAM_TAG, Collected, DeclarationError, begin, function_of
from feature_repo.derive import changed_standard, declared_standard, place_of
from fraud.declared.batch import batch_problems
from fraud.declared.declaration import (
    DECISION,
    OF_CONDITIONS,
    OF_NUMBERS,
    Aggregate,
    Declarations,
    Function,
    Service,
    StreamView,
    TableView,
    decode,
    encode,
    named,
    problems_of,
)
from fraud.declared.figures import Standard
from fraud.declared.layout import layout_of
from fraud.features.checks import changed_meanings, standard_problems
from fraud.features.entities import ENTITIES
from fraud.features.plan import shipped
from stores.declared import event_columns, plan_path
from stores.expressions import Expression, ExpressionError
from stores.settings import Settings, settings

OWN: Final = Path(__file__).parent / "own"
#: Types of a table's columns that a served row can hold.
_NUMBERS: Final = (Float64, Float32, Int64, Int32, Bool)
_FEAST: Final = (Entity, FeatureView, FeatureService, OnDemandFeatureView, DataSource)


@dataclass
class Own:
    """What the files of a team declare: Feast's objects, and everything else."""

    objects: list[Any] = field(default_factory=list)
    collected: Collected = field(default_factory=Collected)

    def everything(self) -> Iterator[Any]:
        """The objects and the sources that stand within them."""
        for each in self.objects:
            yield each
            if isinstance(each, FeatureView):
                if each.batch_source is not None:
                    yield each.batch_source
                if each.stream_source is not None:
                    yield each.stream_source


def own_folder(chosen: Settings) -> Path:
    """The folder of a team's own definitions."""
    return chosen.feast.own or OWN


def load_own(chosen: Settings | None = None) -> Own:
    """Read the files and check what they declare; raise `DeclarationError` with every problem."""
    chosen = chosen or settings()
    own = read_own(own_folder(chosen))
    declarations_of(own, stored(chosen), settled_from(chosen))
    return own


def read_own(folder: Path) -> Own:
    """Run the files of `folder` in order of their names and gather what they define."""
    collected = begin()
    known = {id(each) for each in vars(standard).values()}
    found: dict[int, Any] = {}
    for path in sorted(folder.glob("*.py")):
        for value in _run(path, collected).values():
            if isinstance(value, _FEAST) and id(value) not in known:
                found.setdefault(id(value), value)
            view = getattr(value, "view", None)
            if isinstance(view, OnDemandFeatureView):
                found.setdefault(id(view), view)
    return Own(list(found.values()), collected)


def _run(path: Path, collected: Collected) -> dict[str, Any]:
    name = f"tollgate_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001  # whatever a file raises is said with its line
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
        ]
        line = lines[-1] if lines else getattr(error, "lineno", 0)
        collected.problems.append(f"{path.name}:{line}: {type(error).__name__}: {error}")
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}


def stored(chosen: Settings) -> Declarations:
    """What was applied last; nothing if nothing was."""
    path = plan_path(chosen)
    return decode(path.read_bytes()) if path.exists() else Declarations()


def settled_from(chosen: Settings) -> int:
    """From when on a view that is new now knows every event: 0 while the lake holds none, else from now on
    (milliseconds of wall-clock time)."""
    if any((chosen.lake / "transactions").glob("date=*/*.parquet")):
        return time.time_ns() // 1_000_000
    return 0


def declarations_of(own: Own, before: Declarations, since_ms: int) -> Declarations:
    """What `own` declares, as the platform reads it; raise `DeclarationError` with every problem.

    `before` is what was applied last: its names keep their meaning and their places. Views whose states
    are new know events from `since_ms` on.
    """
    collected = own.collected
    problems = list(collected.problems)
    declared = Declarations(
        attributes=tuple(collected.attributes),
        measures=tuple(collected.measures),
        streams=tuple(_streams(own.objects)),
        tables=tuple(_tables(own, problems)),
        expressions=tuple(collected.expressions),
        services=tuple(_services(own.objects)),
        batches=tuple([batch_of(view) for view in own.objects if _is_batch(view)]),
    )
    platform = declared_standard()
    wrong = standard_problems(platform)
    if since_ms:  # whoever has decided by the old meaning would not learn of the new one
        wrong += changed_meanings(before.standard or shipped(), platform)
    problems += [f"{place_of(name)}: {name} {text}" for name, text in wrong]
    found = [*problems_of(declared, taken(platform)), *batch_problems(declared)]
    problems += [f"{collected.place(name)}: {name} {text}" for name, text in found]
    problems += _expression_problems(declared, collected)
    problems += _changed(declared, before, collected)
    if problems:
        raise DeclarationError(sorted(set(problems)))
    known = {view.name: view for view in before.streams}
    streams = [_since(view, known.get(view.name), since_ms) for view in declared.streams]
    return replace(
        declared, streams=tuple(streams), order=_order(declared, before), standard=changed_standard()
    )


def _since(view: StreamView, before: StreamView | None, since_ms: int) -> StreamView:
    """The view with the time from which its states know every event: as before, if they stay as they are."""
    if before is not None:
        same = replace(view, known_from_ms=before.known_from_ms)
        if layout_of(same).digest == layout_of(before).digest:
            return same
    return replace(view, known_from_ms=since_ms)


def taken(platform: Standard) -> dict[str, str]:
    """Names that own features may not have, with what has them."""
    found = {
        each.name: "a column of a standard profile" for view in platform.batches for each in view.figures
    }
    found |= dict.fromkeys(standard_names(platform), "a standard feature")
    return found | {each.name: "an entity" for each in ENTITIES}


def standard_names(platform: Standard) -> list[str]:
    """The platform's own features that a service can list."""
    states = [each.name for view in platform.velocities for each in view.figures]
    return [*platform.service, *[each.name for each in platform.requests], *states]


def write_plan(chosen: Settings | None = None) -> Declarations:
    """Read the files, check, and write the document that every process reads; return what is declared."""
    chosen = chosen or settings()
    declared = declarations_of(read_own(own_folder(chosen)), stored(chosen), settled_from(chosen))
    path = plan_path(chosen)
    if declared == Declarations() and not path.exists():
        return declared
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_bytes(encode(declared))
    unfinished.replace(path)
    return declared


def _streams(objects: Sequence[Any]) -> Iterator[StreamView]:
    for view in objects:
        if isinstance(view, StreamFeatureView):
            meanings = {each.name: each.description for each in view.features}
            aggregates = []
            for one in view.aggregations:
                function, nth = function_of(one)
                window_ms = round(one.time_window.total_seconds() * 1000) if one.time_window else 0
                aggregates.append(
                    Aggregate(
                        one.name,
                        cast("Function", function),
                        one.column or "",
                        window_ms,
                        nth,
                        meanings.get(one.name, ""),
                    )
                )
            ttl_ms = round(view.ttl.total_seconds() * 1000) if view.ttl else 0
            key = view.tags.get(STREAM_TAG, view.join_keys[0])
            yield StreamView(view.name, view.entities[0], key, ttl_ms, tuple(aggregates), 0, view.description)


def _tables(own: Own, problems: list[str]) -> Iterator[TableView]:
    served = {
        (projection.name, feature.name)
        for service in own.objects
        if isinstance(service, FeatureService)
        for projection in service.feature_view_projections
        for feature in projection.features
    }
    for view in own.objects:
        if isinstance(view, FeatureView) and not isinstance(view, StreamFeatureView):
            numbers = [each for each in view.features if each.dtype in _NUMBERS]
            problems += [
                f"{own.collected.place(each.name)}: {each.name} is {each.dtype}; a service can serve "
                "numbers and booleans so far"
                for each in view.features
                if each not in numbers and (view.name, each.name) in served
            ]
            ttl_us = round(view.ttl.total_seconds() * 1_000_000) if view.ttl else 0
            yield TableView(
                view.name, view.entities[0], view.join_keys[0], ttl_us,
                tuple([each.name for each in numbers]), tuple([each.description for each in numbers]),
            )  # fmt: skip


def _is_batch(view: Any) -> bool:
    return isinstance(view, FeatureView) and BATCH_TAG in view.tags


def _services(objects: Sequence[Any]) -> Iterator[Service]:
    for service in objects:
        if isinstance(service, FeatureService):
            names = [each.name for view in service.feature_view_projections for each in view.features]
            yield Service(service.name, tuple(names))


def _expression_problems(declared: Declarations, collected: Collected) -> Iterator[str]:
    numbers, texts = event_columns(declared)
    flags = {each.name for each in declared.attributes if each.kind == "flag"}
    types: dict[str, type] = {}
    for measure in declared.measures:
        try:
            types[measure.name] = Expression(measure.expression).check(numbers, texts | {DECISION}, flags)
        except ExpressionError as error:
            yield f"{collected.place(measure.name)}: {measure.name}: {error}"
    uses: list[tuple[str, str, str]]
    uses = [(each.name, each.function, each.column) for view in declared.streams for each in view.aggregates]
    uses += [(each.name, each.function, each.column) for view in declared.batches for each in view.figures]
    for name, function, column in uses:
        found = types.get(column)
        if found is not None and function in OF_CONDITIONS and found is not bool:
            yield f"{collected.place(name)}: {name}: {column} is no condition"
        if found is str and function in OF_NUMBERS:
            yield f"{collected.place(name)}: {name}: {column} is a text, not a number"
    features = {name for name, _ in declared.features()} | set(standard_names(declared_standard()))
    for one in declared.expressions:
        try:
            if Expression(one.expression).check(numbers | features, texts, flags) is str:
                yield f"{collected.place(one.name)}: {one.name}: should give a number or a condition"
        except ExpressionError as error:
            yield f"{collected.place(one.name)}: {one.name}: {error}"


def _changed(declared: Declarations, before: Declarations, collected: Collected) -> Iterator[str]:
    """Names that mean something else than they did: what was counted and trained on had the old meaning."""
    old, new = named(before), named(declared)
    for name, meaning in new.items():
        if name in old and old[name] != meaning:
            yield (
                f"{collected.place(name)}: {name} meant `{old[name]}` and would mean `{meaning}`: "
                "give what is new a name of its own"
            )


def _order(declared: Declarations, before: Declarations) -> tuple[str, ...]:
    served = {name for service in declared.services for name in service.features}
    own = [name for name, _ in declared.features() if name in served]
    return (*before.order, *[name for name in own if name not in before.order])
