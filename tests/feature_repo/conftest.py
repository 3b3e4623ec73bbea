"""One Spark session for the folder's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from feature_repo.spark import spark_session
from fraud.settings import settings


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Local Spark whose scratch files lie in a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLGATE_HOME", str(tmp_path_factory.mktemp("spark")))
        patch.setenv("TOLLGATE_SPARK_MEMORY", "1g")
        settings.cache_clear()
        session = spark_session("tests")
    settings.cache_clear()
    session.conf.set("spark.sql.shuffle.partitions", "2")
    yield session
    session.stop()
