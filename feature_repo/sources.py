"""Parquet of the lake as Feast sources, checked without starting Spark."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from feast import RepoConfig
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

from stores.settings import settings

#: Offline rows of a view: when the value holds from, and when it became visible.
EVENT: Final = "event_timestamp"
KNOWN: Final = "created_timestamp"
#: How folders of the lake are named: profiles by cut, everything else by UTC date.
BY_CUT: Final = ("cut", "%Y%m%dT%H%M%S")
BY_DATE: Final = ("date", "%Y-%m-%d")


class LakeSource(SparkSource):
    """A SparkSource on a folder of the lake; Feast's registry stores it as a plain SparkSource.

    `feast apply` asks a source for its columns, which the stock class answers by starting
    Spark. A file's footer answers in a millisecond, and an empty lake is no error: its folders
    appear with the first cut or the first event.
    """

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        import pyarrow.parquet as pq

        first = next(Path(str(self.path)).glob("**/[!._]*.parquet"), None)
        schema = pq.read_schema(first) if first is not None else []
        return [(column.name, str(column.type)) for column in schema]

    def validate(self, config: RepoConfig) -> None:
        """Raise ValueError if there are files but they lack the timestamps of a view."""
        columns = [name for name, _ in self.get_table_column_names_and_types(config)]
        missing = {EVENT, KNOWN}.difference(columns) if columns else set()
        if missing:
            raise ValueError(
                f"{self.path} lacks {', '.join(sorted(missing))}: write it again with this version"
            )


# Feast lets batch views have sources of known kinds alone, and tells kinds by the name of their class.
LakeSource.__name__ = SparkSource.__name__


def lake_source(name: str, folder: str, partition: tuple[str, str], description: str) -> LakeSource:
    """The source `name` on `folder` of the lake, with known-at times.

    `partition` is the column its folders are named by, and the format of the event time in it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "experimental", on every construction
        return LakeSource(
            name=name,
            path=str(settings().lake / folder),
            file_format="parquet",
            timestamp_field=EVENT,
            created_timestamp_column=KNOWN,
            date_partition_column=partition[0],
            date_partition_column_format=partition[1],
            description=description,
        )
