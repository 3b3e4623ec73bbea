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
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

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

from feature_repo.asof import EmptyEntitiesError, join_as_of, number_rows
from feature_repo.completion import completion
from feature_repo.requested_views import is_empty, requested_views
from feature_repo.retrieval import AsOfRetrievalJob, LatestRetrievalJob
from feature_repo.spark import spark_session
from fraud.features.entities import ENTITIES
from stores.declared import declared

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


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
        views = requested_views(
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
        if isinstance(data_source, SparkSource) and is_empty(data_source):
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
    entity = next((each for each in ENTITIES if each.state_feature in features), None)
    if entity is not None and isinstance(source, SparkSource):
        return [entity.state_feature]
    views = {layout.view for layout in declared().layouts}
    stored = [name for name in features if name.removesuffix("_state") in views]
    is_log = isinstance(source, SparkSource) and Path(source.path or "").name in views
    return stored if is_log and stored else features


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep stock Feast's "experimental" prints out of commands' output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


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
