"""Stock Feast's Spark retrieval of the same feature service, to stand beside ours.

    python -m benchmarks.stock_feast --from TIME --rows N

Prints the seconds of `get_historical_features(...).to_df()`, without the start of Spark. Stock Feast
fails on a view that has no file yet: entities that the data lacks get a file without rows.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import time
import warnings
from datetime import datetime, timedelta
from pathlib import Path

from feast import FeatureStore
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkOfflineStoreConfig

from feature_repo.aggregates.run import profile_schema
from feature_repo.spark import spark_session
from feature_repo.store import open_store
from feature_repo.velocity_replay import log_schema
from fraud.features.entities import ENTITIES, FEATURE_SERVICE
from stores.lake import read_transactions
from stores.lake_files import write_parquet
from stores.settings import settings
from training.dataset_rows import entity_table


def _fill_in(lake: Path) -> None:
    """A parquet file without rows for every view that has none."""
    for entity in ENTITIES:
        for folder, partition, schema in (
            (lake / "profiles" / entity.name, "cut=19700101T000000", profile_schema(entity)),
            (lake / "velocity" / entity.name, "date=1970-01-01", log_schema(entity)),
        ):
            if next(folder.glob("*/*.parquet"), None) is None:
                write_parquet(schema.empty_table(), folder / partition / "arrived-19700101-00000.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock_feast", description=__doc__)
    parser.add_argument("--from", dest="start", type=datetime.fromisoformat, required=True)
    parser.add_argument("--rows", type=int, required=True)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = read_transactions(settings().lake, chosen.start, chosen.start + timedelta(days=31))
    _fill_in(settings().lake)
    folder = settings().home / "stock"
    shutil.rmtree(folder, ignore_errors=True)
    write_parquet(entity_table(rows.slice(0, chosen.rows)), folder / "rows.parquet")
    spark_session("stock Feast")
    ours = open_store()
    config = ours.config.model_copy()
    config._offline_store = SparkOfflineStoreConfig(type="spark")  # type: ignore[assignment]  # what Feast itself fills in later
    store = FeatureStore(config=config)
    service = store.get_feature_service(FEATURE_SERVICE)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        found = store.get_historical_features(
            f"SELECT * FROM parquet.`{folder}`", service, filter_by_created_timestamp=True
        ).to_df()
    seconds = time.perf_counter() - began
    print(f"{len(found)} rows in {seconds:.2f}")


if __name__ == "__main__":
    main()
