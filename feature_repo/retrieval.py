"""Results of the offline store: Arrow without pandas in between, or parquet without the driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from feast import OnDemandFeatureView, RepoConfig
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkRetrievalJob
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage

from feature_repo.asof import ROW
from feature_repo.completion import Completion
from feature_repo.saved_dataset import SavedFolder

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class RowCountError(RuntimeError):
    """A join gave more or fewer rows than it was asked for."""


class LatestRetrievalJob(SparkRetrievalJob):
    """A query's rows. Nulls stay nulls: pandas would turn a missing number into NaN."""

    def __init__(self, spark: SparkSession, query: str, config: RepoConfig) -> None:
        super().__init__(spark_session=spark, query=query, full_feature_names=False, config=config)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self.to_spark_df().toArrow().combine_chunks()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame


class AsOfRetrievalJob(SparkRetrievalJob):
    """A point-in-time join that is ready to run; one row out for each entity row, in its order."""

    def __init__(
        self,
        *,
        spark: SparkSession,
        rows: int,
        entities: DataFrame,
        joined: DataFrame,
        completion: Callable[[Sequence[str] | None], Completion],
        config: RepoConfig,
        full_feature_names: bool,
        metadata: RetrievalMetadata,
    ) -> None:
        super().__init__(
            spark_session=spark,
            query="",
            full_feature_names=full_feature_names,
            config=config,
            metadata=metadata,
        )
        self._rows = rows
        self._entities = entities
        self._joined = joined
        self._completion = completion

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """None: they have been applied in the executors already."""
        return []

    def to_spark_df(self, columns: Sequence[str] | None = None) -> DataFrame:
        """The result as a lazy frame, in no order; with `columns`, only those."""
        if columns is not None:
            return self._completion(columns).frame(self._joined)
        return self._completion(None).frame(self._joined).drop(ROW)

    def write_parquet(
        self,
        path: Path,
        columns: Sequence[str] | None = None,
        *,
        partition: str | None = None,
        order: Sequence[str] = (),
    ) -> int:
        """Write `columns` (or all) to the folder `path` from the executors; return the row count.

        With `partition`, a string column of the entity rows, each of its values gets a folder with
        one file; rows of a file are in `order`, columns of the entity rows. What was in the folder
        is replaced. Raises RowCountError if a row was lost or doubled on the way.
        """
        names = (
            [name for name in self._completion(None).columns if name != ROW] if columns is None else columns
        )
        values: list[str] = []
        if partition is not None:
            found = self._entities.select(partition).distinct().collect()
            values = [str(row[0]) for row in found if row[0] is not None]
        self._check(self._completion(names).write(self._joined, path, order, partition, values))
        return self._rows

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool | None = False, timeout: int | None = None
    ) -> None:
        """Write every column to `storage`, for `FeatureStore.create_saved_dataset`.

        Raises SavedDatasetLocationAlreadyExists if it holds data that may not be overwritten.
        """
        if not isinstance(storage, SavedFolder):
            super().persist(storage, allow_overwrite, timeout)
            return
        if not allow_overwrite and next(Path(storage.folder).glob("**/*.parquet"), None) is not None:
            raise SavedDatasetLocationAlreadyExists(storage.folder)
        self.write_parquet(Path(storage.folder), partition=storage.partition)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        table = self._completion(None).frame(self._joined).toArrow().sort_by(ROW)
        self._check(table.num_rows)
        return table.drop_columns([ROW]).combine_chunks()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def _check(self, rows: int) -> None:
        if rows != self._rows:
            raise RowCountError(f"{self._rows} entity rows went in and {rows} came out")
