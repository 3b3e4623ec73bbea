"""The offline store: Feast's Spark store with point-in-time joins that are linear per key.

Stock Spark retrieval joins every view row of a key with every training row of that key and
runs on-demand views over the whole result on the driver. Here workers look the newest rows up in
the files of parquet views (`feature_repo.newest_rows`), always as known at the time, and run
on-demand views themselves; views of other sources are joined by Spark in one ordered pass over
keys and times (`feature_repo.asof`). Tests hold the results equal to stock.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores import offline_utils
from feast.infra.offline_stores.contrib.spark_offline_store.spark import (
    SparkOfflineStore,
    SparkOfflineStoreConfig,
    SparkRetrievalJob,
)
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.type_map import feast_value_type_to_pa

from feature_repo.asof import EmptyEntitiesError, View, join_as_of, number_rows
from feature_repo.completion import completion
from feature_repo.declare import STREAM_TAG
from feature_repo.on_demand import Call, declared_call
from feature_repo.parquet_view import ParquetView
from feature_repo.retrieval import AsOfRetrievalJob, LatestRetrievalJob
from feature_repo.spark import spark_session
from fraud.declared.declaration import encode
from stores.declared import declared, state_feature

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


class AsOfSparkOfflineStoreConfig(SparkOfflineStoreConfig):
    """Nothing to configure: the session comes from `feature_repo.spark`."""

    type: Literal["feature_repo.offline_store.AsOfSparkOfflineStore"] = (
        "feature_repo.offline_store.AsOfSparkOfflineStore"
    )


class AsOfSparkOfflineStore(SparkOfflineStore):
    """Feast's Spark offline store; `get_historical_features` is ours, the rest is inherited."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | DataFrame | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = True,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Features of each entity row as they were known at its event timestamp.

        `entity_df` is a pandas or Spark frame, or SQL such as ``SELECT * FROM parquet.`path```.
        Values that became known later are never seen, whatever `filter_by_created_timestamp`
        says: turning that off would train on the future.
        """
        spark = spark_session()
        if entity_df is None:
            with _quiet():
                return SparkOfflineStore.get_historical_features(
                    config, feature_views, feature_refs, None, registry, project, full_feature_names,
                    filter_by_created_timestamp=True, **kwargs,
                )  # fmt: skip
        entities = _entity_frame(spark, entity_df)
        time = offline_utils.infer_event_timestamp_from_entity_df(_numpy_types(entities))
        expected = offline_utils.get_expected_join_keys(project, feature_views, registry)
        offline_utils.assert_expected_columns_in_entity_df(_numpy_types(entities), expected, time)
        entities = number_rows(entities)
        count, span = _extent(entities, time)
        views = _views(
            spark, registry, project, feature_refs, feature_views, (time, span), full_feature_names,
            entities.columns,
        )  # fmt: skip
        joined = join_as_of(entities, time, [view.joined for view in views if view.joined is not None])
        outputs = [output for view in views for output in view.outputs]
        parquet = [view.parquet for view in views if view.parquet is not None]
        aggregates = [view.call for view in views if view.call is not None]
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        return AsOfRetrievalJob(
            spark=spark,
            rows=count,
            entities=entities,
            joined=joined,
            completion=lambda wanted: completion(
                joined, outputs, parquet, on_demand, feature_refs, full_feature_names, wanted, aggregates
            ),
            config=config,
            full_feature_names=full_feature_names,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=sorted(set(entities.columns) - {time}),
                min_event_timestamp=span[0],
                max_event_timestamp=span[1],
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row per key in a time range, for materialization; none from an empty lake."""
        spark = spark_session()
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        columns += [created_timestamp_column] if created_timestamp_column else []
        if isinstance(data_source, SparkSource) and _is_empty(data_source):
            return LatestRetrievalJob(spark, _no_rows(columns), config)
        stored = _stored_columns(data_source, feature_name_columns)
        with _quiet():
            job = SparkOfflineStore.pull_latest_from_table_or_query(
                config, data_source, join_key_columns, stored, timestamp_field, created_timestamp_column,
                start_date, end_date,
            )  # fmt: skip
        query = cast(SparkRetrievalJob, job).query
        if stored != feature_name_columns:
            made = [
                f"CAST(NULL AS DOUBLE) AS `{name}`" for name in feature_name_columns if name not in stored
            ]
            query = f"SELECT *, {', '.join(made)} FROM ({query})"
        return LatestRetrievalJob(spark, query, config)

    @staticmethod
    def pull_all_from_table_or_query(*args: Any, **kwargs: Any) -> RetrievalJob:
        """Stock behaviour, on this process's session."""
        spark_session()
        with _quiet():
            return SparkOfflineStore.pull_all_from_table_or_query(*args, **kwargs)


def _stored_columns(source: DataSource, features: list[str]) -> list[str]:
    """Those of a view's features that its files have: of a declared stream view its states alone, which its
    aggregates are made from whenever they are read."""
    views = {layout.view for layout in declared().layouts}
    stored = [name for name in features if name.removesuffix("_state") in views]
    is_log = isinstance(source, SparkSource) and Path(source.path or "").name in views
    return stored if is_log and stored else features


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep stock Feast's "experimental" prints out of commands' output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _is_empty(source: SparkSource) -> bool:
    """Whether a file source has no files yet (local paths only; remote ones are taken to exist)."""
    path = source.path
    if not path or "://" in path:
        return False
    return next(Path(path).glob("**/[!._]*.parquet"), None) is None


def _no_rows(columns: list[str]) -> str:
    times = {"event_timestamp", "created_timestamp"}
    casts = [f"CAST(NULL AS {'TIMESTAMP' if name in times else 'STRING'}) AS `{name}`" for name in columns]
    return f"SELECT {', '.join(casts)} WHERE false"


def _entity_frame(spark: SparkSession, entity_df: pd.DataFrame | str | DataFrame) -> DataFrame:
    if isinstance(entity_df, str):
        return spark.sql(entity_df)
    if isinstance(entity_df, pd.DataFrame):
        return spark.createDataFrame(pa.Table.from_pandas(entity_df, preserve_index=False))
    return entity_df


def _numpy_types(entities: DataFrame) -> dict[str, Any]:
    """Column types as Feast's checks expect them."""
    import numpy as np

    return {
        name: np.dtype("datetime64[ns]") if kind.startswith("timestamp") else np.dtype("object")
        for name, kind in entities.dtypes
    }


def _extent(entities: DataFrame, time: str) -> tuple[int, tuple[datetime, datetime]]:
    """How many entity rows there are, and their first and last time."""
    from pyspark.sql import functions as F

    micros = F.unix_micros(F.col(time))
    count, low, high = entities.agg(F.count(F.lit(1)), F.min(micros), F.max(micros)).collect()[0]
    if low is None:
        raise EmptyEntitiesError(f"the entity rows are empty, or none has an {time}")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return count, (epoch + timedelta(microseconds=low), epoch + timedelta(microseconds=high))


@dataclass(frozen=True, slots=True)
class _Requested:
    """A requested view: its output columns, and by whom it is joined: Spark, or workers from files."""

    outputs: tuple[str, ...]
    joined: View | None = None
    parquet: ParquetView | None = None
    #: What makes the outputs of a declared stream view from its states.
    call: Call | None = None


def _views(
    spark: SparkSession,
    registry: BaseRegistry,
    project: str,
    feature_refs: list[str],
    feature_views: list[FeatureView],
    asked: tuple[str, tuple[datetime, datetime]],
    full_feature_names: bool,
    entity_columns: Sequence[str],
) -> list[_Requested]:
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
) -> _Requested:
    """One view, whose `keys` pair the source's key columns with those of the entity rows."""
    from pyspark.sql import functions as F

    time, span = asked
    outputs, kinds = tuple([each.output for each in columns]), tuple([each.spark for each in columns])
    ttl, asking = view.ttl or timedelta(0), tuple(keys.values())
    folders = _folders(source, ttl, span)
    if not folders:
        return _Requested(outputs, View(name, asking, outputs, kinds, ttl, None))
    if not (source.path and source.file_format == "parquet"):
        rows = spark.sql(f"SELECT * FROM {source.get_table_query_string()}")
        values = {each.output: F.col(each.name) for each in columns}
        joined = View(name, asking, outputs, kinds, ttl, _view_rows(rows, source, keys, values, ttl, span))
        return _Requested(outputs, joined)
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
    return _Requested(outputs, parquet=parquet)


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
    if _is_empty(source):
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
