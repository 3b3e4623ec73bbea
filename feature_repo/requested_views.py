"""The views that a retrieval asks for: their columns, and who joins them, Spark or workers from files.

Files of parquet views are listed here, once, within the time that the entity rows can see; views of other
sources become Spark frames of the same form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView
from feast.infra.offline_stores import offline_utils
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.registry.base_registry import BaseRegistry
from feast.type_map import feast_value_type_to_pa

from feature_repo.asof import View
from feature_repo.declare import STREAM_TAG
from feature_repo.on_demand import Call, declared_call, velocity_call
from feature_repo.parquet_view import ParquetView
from feature_repo.velocity_columns import entity_of
from fraud.declared.declaration import encode
from fraud.features.entities import Entity
from stores.declared import declared, state_feature

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


@dataclass(frozen=True, slots=True)
class Requested:
    """A requested view: its output columns, and by whom it is joined: Spark, or workers from files."""

    outputs: tuple[str, ...]
    joined: View | None = None
    parquet: ParquetView | None = None
    #: What makes the outputs of a declared stream view from its states.
    call: Call | None = None


def requested_views(
    spark: SparkSession,
    registry: BaseRegistry,
    project: str,
    feature_refs: list[str],
    feature_views: list[FeatureView],
    asked: tuple[str, tuple[datetime, datetime]],
    full_feature_names: bool,
    entity_columns: Sequence[str],
) -> list[Requested]:
    """The requested views, limited to the time that entity rows can see.

    `asked` is the entity rows' time column, and the first and last time in it.
    """
    by_name = {_name(view): view for view in feature_views}
    # Asking Feast for its query context would load every source, and fail on an empty lake.
    wanted, _ = offline_utils._get_requested_feature_views_to_features_dict(  # type: ignore[attr-defined]
        feature_refs, feature_views, OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
    )
    views = []
    for view, features in wanted.items():
        name = _name(view)
        source = by_name[name].batch_source
        if not isinstance(source, SparkSource):
            raise ValueError(f"feature view {name} has no SparkSource to read history from")
        column_of = {mapped: column for column, mapped in source.field_mapping.items()}
        keys = {
            column_of.get(key.name, key.name): view.projection.join_key_map.get(key.name, key.name)
            for key in view.entity_columns
        }
        kinds = {feature.name: feature.dtype for feature in view.features}
        columns = [
            _Column(
                column_of.get(feature, feature),
                f"{name}__{feature}" if full_feature_names else feature,
                feast_value_type_to_pa(kinds[feature].to_value_type()),
            )
            for feature in features
        ]
        entity = entity_of(view.name)
        if entity is not None and any(each.name != entity.state_feature for each in columns):
            views.append(_figures(spark, view, name, source, keys, columns, asked, entity))
            continue
        if STREAM_TAG not in view.tags:
            views.append(_requested(spark, view, name, source, keys, columns, asked))
            continue
        stored = state_feature(view.name)
        if any(each.name == stored for each in columns):  # the bytes themselves
            raise ValueError(f"{stored} is what the aggregates of {name} come from: ask for these")
        state = _Column(stored, f"__state__{name}", pa.binary())
        found = _requested(spark, view, name, source, keys, [state], asked)
        made = {each.name: each.output for each in columns}
        call = declared_call(
            view.name, encode(declared().declarations), state.output, asked[0], entity_columns, made
        )
        views.append(replace(found, outputs=tuple(made.values()), call=call))
    return views


def _figures(
    spark: SparkSession, view: FeatureView, name: str, source: SparkSource, keys: dict[str, str],
    columns: list[_Column], asked: tuple[str, tuple[datetime, datetime]], entity: Entity,
) -> Requested:  # fmt: skip
    """A standard velocity view of which figures are asked: from its states, at the rows' own times."""
    stored = next((each for each in columns if each.name == entity.state_feature), None)
    state = stored or _Column(entity.state_feature, f"__state__{name}", pa.binary())
    found = _requested(spark, view, name, source, keys, [state], asked)
    made = {each.name: each.output for each in columns if each is not stored}
    outputs = (*made.values(), *([state.output] if stored else []))
    return replace(found, outputs=outputs, call=velocity_call(view.name, state.output, asked[0], made))


@dataclass(frozen=True, slots=True)
class _Column:
    """A value column: its name in the source, the output it becomes, its type."""

    name: str
    output: str
    kind: pa.DataType

    @property
    def spark(self) -> str:
        from pyspark.sql.pandas.types import from_arrow_type

        return from_arrow_type(self.kind).simpleString()


def _requested(
    spark: SparkSession,
    view: FeatureView,
    name: str,
    source: SparkSource,
    keys: dict[str, str],
    columns: list[_Column],
    asked: tuple[str, tuple[datetime, datetime]],
) -> Requested:
    """One view, whose `keys` pair the source's key columns with those of the entity rows."""
    from pyspark.sql import functions as F

    time, span = asked
    outputs, kinds = tuple([each.output for each in columns]), tuple([each.spark for each in columns])
    ttl, asking = view.ttl or timedelta(0), tuple(keys.values())
    folders = _folders(source, ttl, span)
    if not folders:
        return Requested(outputs, View(name, asking, outputs, kinds, ttl, None))
    if not (source.path and source.file_format == "parquet"):
        rows = spark.sql(f"SELECT * FROM {source.get_table_query_string()}")
        values = {each.output: F.col(each.name) for each in columns}
        joined = View(name, asking, outputs, kinds, ttl, _view_rows(rows, source, keys, values, ttl, span))
        return Requested(outputs, joined)
    listed = _files(spark, source.path, folders)
    partition = source.date_partition_column
    parquet = ParquetView(
        name=name,
        time=time,
        keys=tuple(keys.items()),
        event=source.timestamp_field,
        known=source.created_timestamp_column or source.timestamp_field,
        columns=tuple([(each.name, each.output, each.kind) for each in columns]),
        ttl_us=ttl // timedelta(microseconds=1),
        partition=source.date_partition_column_format,
        files=tuple(sorted([(address, _partition_value(address, partition)) for address in listed])),
    )
    return Requested(outputs, parquet=parquet)


def is_empty(source: SparkSource) -> bool:
    """Whether a file source has no files yet (local paths only; remote ones are taken to exist)."""
    path = source.path
    if not path or "://" in path:
        return False
    return next(Path(path).glob("**/[!._]*.parquet"), None) is None


def _files(spark: SparkSession, path: str, folders: list[str]) -> list[str]:
    """Addresses of the parquet files in `folders` of the source at `path`."""
    if all(Path(folder).is_dir() for folder in folders):  # a hundredth of what Spark takes for it
        return [
            file.absolute().as_uri() for folder in folders for file in Path(folder).glob("**/[!._]*.parquet")
        ]
    # Spark lists files wherever it can read them; it need not look into one, so any schema will do.
    return spark.read.schema("x int").option("basePath", path).parquet(*folders).inputFiles()


def _partition_value(address: str, partition: str | None) -> str:
    """The value of the `partition` column in the name of a file's folder."""
    named = [part.partition("=")[2] for part in address.split("/") if part.startswith(f"{partition}=")]
    return unquote(named[-1]) if partition and named else ""


def _folders(source: SparkSource, ttl: timedelta, span: tuple[datetime, datetime]) -> list[str]:
    """The folders of a source that can hold rows for the entity rows' time; none if it is empty.

    Naming them spares Spark the listing of years of folders, a task for each. What is not a
    local folder partitioned by time is named whole.
    """
    if is_empty(source):
        return []
    path, partition = source.path or "", source.date_partition_column
    if not path or "://" in path or not partition:
        return [path]
    low, high = (at.strftime(source.date_partition_column_format) for at in (span[0] - ttl, span[1]))
    found = {folder.name.partition("=")[2]: str(folder) for folder in Path(path).glob(f"{partition}=*")}
    return [folder for value, folder in sorted(found.items()) if value <= high and (not ttl or low <= value)]


def _name(view: FeatureView) -> str:
    return str(view.projection.name_to_use())  # type: ignore[no-untyped-call]


def _view_rows(
    rows: DataFrame,
    source: SparkSource,
    keys: dict[str, str],
    values: dict[str, Column],
    ttl: timedelta,
    span: tuple[datetime, datetime],
) -> DataFrame:
    """Rows of one source: keys under the entity rows' names, `event`, `known` and `values`."""
    from pyspark.sql import functions as F

    event, known = source.timestamp_field, source.created_timestamp_column or source.timestamp_field
    low = span[0] - ttl if ttl else None
    rows = rows.where(F.col(event) <= F.lit(span[1]))
    if low is not None:
        rows = rows.where(F.col(event) >= F.lit(low))
    if source.date_partition_column:
        partition, form = F.col(source.date_partition_column), source.date_partition_column_format
        rows = rows.where(partition <= F.lit(span[1].strftime(form)))
        if low is not None:
            rows = rows.where(partition >= F.lit(low.strftime(form)))
    # Spark's comparisons with null are never true, as in stock: such rows match nothing.
    rows = rows.where(F.col(event).isNotNull() & F.col(known).isNotNull())
    for key in keys:
        rows = rows.where(F.col(key).isNotNull())
    return rows.select(
        *[F.col(key).alias(name) for key, name in keys.items()],
        F.col(event).alias("event"),
        F.col(known).alias("known"),
        *[column.alias(name) for name, column in values.items()],
    )
