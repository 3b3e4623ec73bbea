"""Feast saved datasets on a folder of parquet.

Feast's own `SavedDatasetSparkStorage` names no data source for a path, so that Feast 0.67 cannot
read back what was stored. This storage names it, and leaves other files of the folder (such as
a manifest) alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.core.SavedDataset_pb2 import SavedDatasetStorage as SavedDatasetStorageProto
from feast.saved_dataset import SavedDataset, SavedDatasetStorage

from feature_repo.sources import EVENT

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore


class SavedFolder(SavedDatasetStorage):
    """A folder of parquet files, directly in it or in folders ``column=value`` of one column."""

    _proto_attr_name = "custom_storage"

    def __init__(self, folder: Path | str, partition: str | None = None) -> None:
        self.folder = str(folder)
        self.partition = partition

    @property
    def files(self) -> str:
        """The pattern of its data files."""
        return f"{self.folder}/{self.partition}=*/*.parquet" if self.partition else f"{self.folder}/*.parquet"

    def to_proto(self) -> SavedDatasetStorageProto:
        named = json.dumps({"folder": self.folder, "partition": self.partition}).encode()
        # Records the class too, by which Feast finds it again.
        return self._custom_storage_proto(DataSourceProto.CustomSourceOptions(configuration=named))

    @staticmethod
    def from_proto(storage_proto: SavedDatasetStorageProto) -> SavedFolder:
        named = json.loads(storage_proto.custom_storage.configuration)
        return SavedFolder(named["folder"], named["partition"])

    def to_data_source(self) -> DataSource:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "experimental", on every construction
            return SparkSource(
                name=self.folder, path=self.files, file_format="parquet", timestamp_field=EVENT
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SavedFolder) and self.files == other.files

    def __hash__(self) -> int:
        return hash(self.files)


def register(
    store: FeatureStore,
    name: str,
    storage: SavedFolder,
    *,
    service: FeatureService,
    columns: Sequence[str],
    span: tuple[datetime, datetime],
    tags: dict[str, str],
) -> None:
    """Make what lies in `storage` the saved dataset `name`, replacing one of that name.

    It has the features of `service`, the event time, and `columns` beside them (keys, labels).
    `span` holds the first and the last event time.
    """
    features = [
        f"{projection.name_to_use()}:{feature.name}"  # type: ignore[no-untyped-call]
        for projection in service.feature_view_projections
        for feature in projection.features
    ]
    dataset = SavedDataset(
        name=name, features=features, join_keys=list(columns), storage=storage, tags=tags,
        feature_service_name=service.name,
    )  # fmt: skip
    dataset.min_event_timestamp, dataset.max_event_timestamp = span
    store.registry.apply_saved_dataset(dataset, store.project, commit=True)
