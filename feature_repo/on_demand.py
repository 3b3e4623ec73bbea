"""On-demand feature views inside Spark's executors, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from feast import OnDemandFeatureView
    from pyspark.sql import DataFrame


def apply_on_demand(
    frame: DataFrame,
    views: Sequence[OnDemandFeatureView],
    feature_refs: Sequence[str],
    full_feature_names: bool,
    wanted: Sequence[str] | None,
) -> DataFrame:
    """`frame` with the requested features of `views`; only the columns `wanted`, if given.

    Each view runs on its registered definition, as stock Feast would run it on the driver.
    """
    if views:
        outputs = [_outputs(view, feature_refs, full_feature_names) for view in views]
        schema, names = _schema(frame, outputs, wanted)
        protos = [view.to_proto().SerializeToString() for view in views]
        work = _worker(protos, [list(each) for each in outputs], full_feature_names, names)
        return frame.mapInArrow(work, schema)
    return frame.select(*wanted) if wanted is not None else frame


def _outputs(view: OnDemandFeatureView, feature_refs: Sequence[str], full: bool) -> dict[str, Any]:
    """Columns that a view adds, with their Feast types."""
    name = view.projection.name_to_use()  # type: ignore[no-untyped-call]
    asked = {ref.split(":", 1)[1] for ref in feature_refs if ref.split(":", 1)[0] in (view.name, name)}
    kept = [feature for feature in view.features if not asked or feature.name in asked]
    return {f"{name}__{feature.name}" if full else feature.name: feature.dtype for feature in kept}


def _schema(
    frame: DataFrame, outputs: list[dict[str, Any]], wanted: Sequence[str] | None
) -> tuple[Any, list[str]]:
    from feast.type_map import feast_value_type_to_pa
    from pyspark.sql.pandas.types import from_arrow_type
    from pyspark.sql.types import StructField, StructType

    fields = {field.name: StructField(field.name, field.dataType, True) for field in frame.schema.fields}
    for columns in outputs:
        for name, kind in columns.items():
            fields[name] = StructField(
                name, from_arrow_type(feast_value_type_to_pa(kind.to_value_type())), True
            )
    names = list(fields) if wanted is None else list(wanted)
    return StructType([fields[name] for name in names]), names


@lru_cache(maxsize=8)
def _view(proto: bytes) -> OnDemandFeatureView:
    """The view of a serialized definition, built once per worker process."""
    from feast import OnDemandFeatureView
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView as Proto

    view: OnDemandFeatureView = OnDemandFeatureView.from_proto(Proto.FromString(proto))
    return view


def _worker(
    protos: list[bytes], outputs: list[list[str]], full: bool, names: list[str]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if not batch.num_rows:
                continue
            table = source = pa.Table.from_batches([batch])
            for proto, columns in zip(protos, outputs, strict=True):
                computed = _view(proto).transform_arrow(source, full)
                for name in columns:
                    table = table.append_column(name, computed[name])
            yield from table.select(names).combine_chunks().to_batches()

    return work
