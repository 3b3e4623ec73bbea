"""Stock Feast's Spark retrieval of the same feature service, to stand beside ours.

    python -m benchmarks.stock_feast --from TIME --rows N

Prints the seconds of `get_historical_features(...).to_df()`, without the start of Spark.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from datetime import datetime, timedelta

from feast import FeatureStore
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkOfflineStoreConfig

from datasets.lake import read_transactions
from feature_repo.spark import spark_session
from feature_repo.store import open_store
from fraud.entities import FEATURE_SERVICE
from fraud.settings import settings
from training.dataset_rows import entity_table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock_feast", description=__doc__)
    parser.add_argument("--from", dest="start", type=datetime.fromisoformat, required=True)
    parser.add_argument("--rows", type=int, required=True)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = read_transactions(settings().lake, chosen.start, chosen.start + timedelta(days=31))
    entities = entity_table(rows.slice(0, chosen.rows)).to_pandas()
    entities["event_timestamp"] = entities["event_timestamp"].astype("datetime64[us, UTC]")
    spark_session("stock Feast")
    ours = open_store()
    config = ours.config.model_copy()
    config._offline_store = SparkOfflineStoreConfig(type="spark")
    store = FeatureStore(config=config)
    service = store.get_feature_service(FEATURE_SERVICE)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        found = store.get_historical_features(entities, service, filter_by_created_timestamp=True).to_df()
    seconds = time.perf_counter() - began
    print(f"{len(found)} rows in {seconds:.2f}")


if __name__ == "__main__":
    main()
