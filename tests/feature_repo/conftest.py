"""One Spark session for the folder's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from tests.feature_repo.quick_spark import quick_spark


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Local Spark whose scratch files lie in a temporary folder."""
    session = quick_spark(tmp_path_factory.mktemp("spark"))
    yield session
    session.stop()
