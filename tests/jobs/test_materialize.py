"""The gated cut against real Spark and real Redis: what is bad never arrives."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import redis

from embedded.redis_server import RedisServer
from jobs.materialize import OnlineMismatchError, check_online, materialize
from monitoring.gates.checks import GateBlockedError
from stores.declared import batch_views
from stores.settings import settings
from tests.monitoring.made_days import DAY, rows, write

CUT = DAY + timedelta(days=1)


@pytest.fixture
def platform(home: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """A lake with one day, registered definitions, and an empty Redis of its own."""
    from feature_repo.store import apply_definitions

    monkeypatch.setenv("TOLLGATE_REDIS_URL", redis_server.url.replace("/0", "/5"))
    settings.cache_clear()
    write(settings().lake / "transactions", rows(count=1_500), DAY)
    apply_definitions()
    with redis.Redis.from_url(settings().redis.url) as client:
        client.flushdb()
        yield client


@pytest.mark.slow
def test_a_good_cut_goes_online_and_a_bad_one_leaves_redis_and_the_lake_as_they_were(
    platform: redis.Redis,
) -> None:
    lines: list[str] = []
    assert materialize(CUT, say=lines.append) > 0
    keys = platform.dbsize()
    assert keys > 0
    assert "equal" in lines[-1]

    # the check after it notices a Redis that holds something else
    (view,) = (each for each in batch_views() if each.name == "customer_profile")
    folder = settings().lake / "profiles" / "customer" / f"cut={CUT:%Y%m%dT%H%M%S}"
    file = next(folder.glob("*.parquet"))
    table = pq.read_table(file)
    place = table.column_names.index("customer_txn_count_1d")
    pq.write_table(table.set_column(place, "customer_txn_count_1d", table["customer_txn_count_7d"]), file)
    assert check_online(view, CUT) > 0, "equal counts are equal"
    doubled = table["customer_txn_count_1d"].to_numpy() * 2
    pq.write_table(table.set_column(place, "customer_txn_count_1d", [doubled]), file)
    with pytest.raises(OnlineMismatchError, match="customer_profile"):
        check_online(view, CUT)

    # the next day comes with transactions of nobody
    bad = rows(DAY + timedelta(days=1), count=1_500)
    bad["customer_id"][10:40] = [None] * 30
    write(settings().lake / "transactions", bad, DAY + timedelta(days=1))
    before = {key: platform.hgetall(key) for key in platform.scan_iter(count=1000)}
    with pytest.raises(GateBlockedError, match="customer_id is missing in 30 rows"):
        materialize(CUT + timedelta(days=1), say=lines.append)
    assert {key: platform.hgetall(key) for key in platform.scan_iter(count=1000)} == before
    assert not list((settings().lake / "profiles" / "customer").glob("cut=20180812*"))


@pytest.mark.slow
def test_spark_stops_the_same_faults_as_pandas(home: Path, tmp_path: Path) -> None:
    from monitoring.gates.run import run_gate

    columns = rows(count=1_500)
    columns["customer_id"][10:40] = [None] * 30
    columns["amount_minor"] = [int(value) * 100 for value in columns["amount_minor"]]  # type: ignore[call-overload]
    columns["created_timestamp"][3] = datetime(2030, 1, 1, tzinfo=UTC)
    for values in columns.values():
        values.extend(values[100:140])
    folder = write(tmp_path, columns)
    clock = datetime(2018, 9, 1, tzinfo=UTC)
    results = {engine: run_gate("raw", folder, as_of=clock, engine=engine) for engine in ("pandas", "spark")}  # type: ignore[arg-type]
    found = {
        engine: {(failure.fault, failure.what, failure.rows) for failure in result.failures}
        for engine, result in results.items()
    }
    assert found["pandas"] == found["spark"]
    assert {"nulls", "duplicates", "shifted units", "future events"} <= {
        fault for fault, _, _ in found["spark"]
    }
