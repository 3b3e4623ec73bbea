"""One Spark session a process: local by default, a cluster by `TOLLGATE_SPARK_MASTER`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stores.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Enough to keep a partition of the largest set in memory; adaptive execution merges small ones.
SHUFFLE_PARTITIONS: Final = 16
#: Errors only: Spark's start would otherwise print a screenful.
LOGGING: Final = Path(__file__).resolve().parent / "log4j2.properties"


def spark_session(app: str = "tollgate") -> SparkSession:
    """The running session of this process, or a new one; `app` names a new one.

    All times are UTC, Arrow carries data to and from Python, and nothing listens beyond the
    loopback address when the master is local.
    """
    from pyspark.sql import SparkSession

    chosen = settings()
    # Without it workers take whatever `python3` is on the path and lack this environment.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if chosen.spark.master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    scratch = chosen.home / "spark"
    scratch.mkdir(parents=True, exist_ok=True)
    java = f"-Duser.timezone=UTC -Dlog4j2.configurationFile={LOGGING.as_uri()}"
    builder = SparkSession.builder.appName(app).master(chosen.spark.master)
    for name, value in {
        "spark.driver.memory": chosen.spark.memory,
        "spark.driver.extraJavaOptions": java,
        "spark.executor.extraJavaOptions": java,
        "spark.executorEnv.TZ": "UTC",
        "spark.local.dir": str(scratch / "scratch"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        "spark.sql.shuffle.partitions": str(SHUFFLE_PARTITIONS),
        # So that a few cores end their last tasks together.
        "spark.sql.adaptive.advisoryPartitionSizeInBytes": "24MB",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }.items():
        builder = builder.config(name, value)
    if chosen.spark.master.startswith("local"):
        builder = builder.config("spark.driver.host", "127.0.0.1").config(
            "spark.driver.bindAddress", "127.0.0.1"
        )
        # Files beside the driver are listed by it in milliseconds; a job lists a folder per task.
        builder = builder.config("spark.sql.sources.parallelPartitionDiscovery.threshold", "100000")
    with _java_speaks_to(chosen.home / "logs" / "spark.log"):
        session: SparkSession = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


@contextmanager
def _java_speaks_to(log: Path) -> Iterator[None]:
    """Give the Java process that is started meanwhile `log` as its standard error, for as long as it lives.

    Its launcher prints a screenful that means nothing to a user; what means something reaches Python as an
    exception.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    ours = os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(ours, 2)
        os.close(ours)


def print_progress(line: str) -> None:
    """One line on standard error."""
    print(line, file=sys.stderr, flush=True)
