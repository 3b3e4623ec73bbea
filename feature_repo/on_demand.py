"""On-demand feature views as Spark's workers run them, a batch of rows at a time.

Stock Feast collects the joined rows on the driver and runs every on-demand view there. Here a
worker gets what a python-mode view is (its registered source text, the columns it reads and
the columns it adds) and needs no Feast, whose import costs seconds; a view in another mode is
sent as a whole and run by Feast in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from feature_repo.declared_columns import AT, STATE
from feature_repo.parquet_view import microseconds
from fraud.declared.declaration import EVENT_TEXTS

if TYPE_CHECKING:
    from feast import OnDemandFeatureView


#: Columns of entity rows that declared aggregates may compare with.
EVENT_COLUMNS: Final = ("amount_reference", "attributes", "latitude", "longitude", *EVENT_TEXTS)


@dataclass(frozen=True, slots=True)
class Call:
    """One view as a worker runs it.

    `text` defines `function`, which gets a dict of lists with the names of `inputs` (each from
    the rows' column beside it) and returns one; `outputs` are its results by name and the
    columns they become. Without `text`, `proto` is Feast's serialized definition.
    """

    text: str
    function: str
    proto: bytes
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    full_names: bool
    feeds_others: bool = False


def declared_call(
    view: str, document: bytes, state: str, time: str, columns: Sequence[str], outputs: dict[str, str]
) -> Call:
    """The call that makes a declared stream view's aggregates: from the column `state`, at the rows' `time`,
    beside those of the event that are among `columns`."""
    text = (
        "def compute(inputs):\n    from feature_repo.declared_columns import columns\n\n"
        f"    return columns({view!r}, {document!r}, inputs)\n"
    )
    event = [(name, name) for name in EVENT_COLUMNS if name in columns]
    return Call(
        text,
        "compute",
        b"",
        ((STATE, state), (AT, time), *event),
        tuple(outputs.items()),
        False,
        True,
    )


def velocity_call(view: str, state: str, time: str, outputs: dict[str, str]) -> Call:
    """The call that makes figures of a standard velocity view: from the column `state`, at rows' `time`."""
    text = (
        "def compute(inputs):\n    from feature_repo.velocity_columns import columns\n\n"
        f"    return columns({view!r}, inputs)\n"
    )
    inputs = ((STATE, state), (AT, time))
    return Call(text, "compute", b"", inputs, tuple(outputs.items()), False, True)


def on_demand_calls(
    views: Sequence[OnDemandFeatureView],
    columns: Sequence[str],
    feature_refs: Sequence[str],
    full_feature_names: bool,
) -> tuple[tuple[Call, ...], dict[str, Any]]:
    """What workers run on rows with `columns`, and the Spark types of the columns that it adds."""
    calls: list[Call] = []
    fields: dict[str, Any] = {}
    for view in views:
        outputs = _outputs(view, feature_refs, full_feature_names)
        calls.append(_call(view, columns, outputs, full_feature_names))
        fields |= {column: _spark_type(view, name) for name, column in outputs.items()}
    return tuple(calls), fields


def _outputs(view: OnDemandFeatureView, feature_refs: Sequence[str], full: bool) -> dict[str, str]:
    """The requested features of a view and the columns they become."""
    name = str(view.projection.name_to_use())  # type: ignore[no-untyped-call]
    asked = {ref.split(":", 1)[1] for ref in feature_refs if ref.split(":", 1)[0] in (view.name, name)}
    kept = [feature.name for feature in view.features if not asked or feature.name in asked]
    return {feature: f"{name}__{feature}" if full else feature for feature in kept}


def _spark_type(view: OnDemandFeatureView, feature: str) -> Any:
    from feast.type_map import feast_value_type_to_pa
    from pyspark.sql.pandas.types import from_arrow_type

    kind = next(each.dtype for each in view.features if each.name == feature)
    return from_arrow_type(feast_value_type_to_pa(kind.to_value_type()))


def _call(view: OnDemandFeatureView, columns: Sequence[str], outputs: dict[str, str], full: bool) -> Call:
    """What a worker needs of `view`, whose inputs come under short and full names alike."""
    inputs: dict[str, str] = {}
    for projection in view.source_feature_view_projections.values():
        for feature in projection.features:
            long = f"{projection.name}__{feature.name}"
            column = long if long in columns else feature.name
            inputs |= {feature.name: column, long: column}
    for source in view.source_request_sources.values():
        inputs |= {field.name: field.name for field in source.schema}
    transformation = view.feature_transformation
    text = (
        str(getattr(transformation, "udf_string", "")) if view.mode == "python" and not view.singleton else ""
    )
    if not text.startswith("def "):  # decorated, or nothing but a pickle: Feast knows what to do
        text = ""
    return Call(
        text=text,
        function=transformation.udf.__name__ if text and transformation is not None else "",
        proto=b"" if text else view.to_proto().SerializeToString(),
        inputs=tuple(inputs.items()),
        outputs=tuple(outputs.items()),
        full_names=full,
    )


@lru_cache(maxsize=8)
def _function(text: str, name: str) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    """The function that a registered source text defines, as Feast itself rebuilds it."""
    namespace: dict[str, Any] = {}
    exec(compile(text, f"<feature view {name}>", "exec"), namespace)
    function: Callable[[dict[str, list[Any]]], dict[str, list[Any]]] = namespace[name]
    return function


@lru_cache(maxsize=8)
def _view(proto: bytes) -> OnDemandFeatureView:
    """The view of a serialized definition, built once per worker process."""
    from feast import OnDemandFeatureView
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView as Proto

    view: OnDemandFeatureView = OnDemandFeatureView.from_proto(Proto.FromString(proto))
    return view


def compute(call: Call, table: pa.Table) -> dict[str, pa.Array]:
    """The view's columns for `table`, under their final names."""
    if not call.text:
        computed = _view(call.proto).transform_arrow(table, call.full_names)
        return {column: computed[column] for _, column in call.outputs}
    lists: dict[str, list[Any]] = {}
    for column in {column for _, column in call.inputs}:
        values = table.column(column)
        lists[column] = (microseconds(values) if pa.types.is_timestamp(values.type) else values).to_pylist()
    found = _function(call.text, call.function)({name: lists[column] for name, column in call.inputs})
    return {
        column: pa.array(
            found[name], pa.float64() if call.feeds_others else None, from_pandas=call.feeds_others
        )
        for name, column in call.outputs
    }
