"""Spark for tests: small, and compiled no further than short jobs are worth."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from feature_repo.spark import spark_session
from stores.settings import settings


def quick_spark(home: Path) -> SparkSession:
    """This process's session; its scratch files lie in `home` if it is the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLGATE_HOME", str(home))
        patch.setenv("TOLLGATE_SPARK_MEMORY", "1g")
        # Half the processor time on jobs of a second, by measurement.
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        settings.cache_clear()
        session = spark_session("tests")
    settings.cache_clear()
    session.conf.set("spark.sql.shuffle.partitions", "2")
    return session
