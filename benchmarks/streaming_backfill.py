"""History into the velocity log by Spark, and the same history through the flow: equal bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis

from benchmarks.streaming_flow import platform
from benchmarks.velocity_proof import prove
from fraud.features.entities import ENTITIES
from fraud.state.view import describe
from stores.redis_layout import decode_bytes, entity_key, field
from stores.settings import REPOSITORY, settings


def measure_backfill(
    data: Path | None, mapping: Path, days: int | None, proof_rows: int
) -> Iterator[tuple[str, dict[str, object]]]:
    """Import `data` (None: make a synthetic history), rebuild its velocity log, send the same events
    through the flow, compare.

    `days` takes only the first so many. First comes "backfill", whose `equal_bytes` says whether
    every newest state of the log equals the bytes that the flow has put into Redis; then "proof",
    what `velocity_proof.prove` says of `proof_rows` transactions.
    """
    from datasets.importer import import_data
    from datasets.load import load
    from datasets.mapping import load_mapping
    from datasets.synthetic.__main__ import main as make_synthetic
    from feature_repo.spark import spark_session
    from feature_repo.velocity_log import build_velocity_log
    from stores.lake import parquet_history, read_transactions, transactions_from_table
    from streaming.log.publish import publish_all

    with platform(TOLLGATE_EVENT_LOG="jsonl", TOLLGATE_PARTITIONS="1", TOLLGATE_STREAM_BATCH="2000"):
        configured = settings()
        dataset = configured.home / "dataset"
        if data is None:
            make_synthetic(["--out", str(dataset)])
        else:
            import_data(data, load_mapping(mapping), dataset)
        load(dataset, configured.lake)
        dates = list(parquet_history(configured.lake))
        start = datetime.combine(dates[0], datetime.min.time(), UTC)
        end = datetime.combine(dates[-1], datetime.min.time(), UTC) + timedelta(days=1)
        if days is not None:
            end = min(end, start + timedelta(days=days))
        spark = spark_session("backfill benchmark")
        began = time.perf_counter()
        rows = build_velocity_log(start, end, spark)
        seconds = time.perf_counter() - began
        spark.stop()
        print(f"backfill: {seconds:.1f} s", flush=True)
        history = read_transactions(configured.lake, start, end)
        with home(configured.home / "live"):  # a lake of the flow's own
            publish_all(settings(), transactions_from_table(history))
            began = time.perf_counter()
            flow = [sys.executable, "-m", "streaming.flow", "--drain"]
            subprocess.run(flow, cwd=REPOSITORY, check=True)
            flow_seconds = time.perf_counter() - began
        print(f"flow: {flow_seconds:.1f} s", flush=True)
        compared, different, parts = compare_states(end)
        yield (
            "backfill",
            {
                "rows": history.num_rows,
                "seconds": round(seconds, 1),
                "equal_bytes": different == 0 and compared > 0,
                "log_rows": rows,
                "states_compared": compared,
                "states_different": different,
                "different_parts": dict(parts),
                "flow_seconds": round(flow_seconds, 1),
            },
        )
        with home(configured.home / "live"):
            yield "proof", prove(history, start, end, proof_rows)


def compare_states(end: datetime) -> tuple[int, int, Counter[str]]:
    """How many newest states the log has, how many of them Redis holds in other bytes, and how often
    each part of a state differs."""
    from feature_repo.velocity_log import newest_states

    configured = settings()
    compared = different = 0
    parts: Counter[str] = Counter()
    with redis.Redis.from_url(configured.redis.url) as client:
        for entity in ENTITIES:
            name = field(entity.velocity_view, entity.state_feature)
            for value, state in newest_states(entity, end + timedelta(days=1)):
                stored = client.hget(entity_key(configured.feast.project, entity.key, value), name)
                compared += 1
                if stored is None:
                    different += 1
                    parts[f"{entity.name}: not stored"] += 1
                elif decode_bytes(stored) != state:
                    different += 1
                    ours, theirs = describe(decode_bytes(stored)), describe(state)
                    parts.update([f"{entity.name}: {part}" for part in ours if ours[part] != theirs[part]])
    return compared, different, parts


@contextmanager
def home(folder: Path) -> Iterator[None]:
    """Another home for this process and those it starts."""
    before = os.environ["TOLLGATE_HOME"]
    os.environ["TOLLGATE_HOME"] = str(folder)
    settings.cache_clear()
    try:
        yield
    finally:
        os.environ["TOLLGATE_HOME"] = before
        settings.cache_clear()
