"""The velocity flow: event log, ingestion, velocity states by shard, online store.

    log partition ── ingest ──► (shard, updates) ── states ──► (shard, packed states) ──► Redis
                       └─► arrival log, dead letters

Run it with `python -m streaming.flow`; see `streaming.runner` for processes and recovery.
"""

from __future__ import annotations

import argparse
import logging
import threading

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from stores.declared import declared
from stores.settings import Settings, settings
from streaming.ingest.ingest import Ingested
from streaming.log.partitions import with_partitions
from streaming.log.source import EventLogSource
from streaming.online.redis_sink import OnlineStoreSink
from streaming.states.disk import Disk
from streaming.states.routes import ROUTES
from streaming.states.shard_batch import ShardBatch
from streaming.states.shards import ShardLogic
from streaming.states.tracks import shard_routes, tracks_of


def build_flow(
    configured: Settings, stopping: threading.Event, *, drain: bool = False, keep_log: bool = True
) -> Dataflow:
    """The dataflow for `configured`; it ends when `stopping` is set (with `drain`: at the log's end)."""
    configured = with_partitions(configured, stopping)
    flow = Dataflow("velocity")
    disk = Disk()
    own = declared(configured)
    tracks = tracks_of(own, configured.home / "stream")
    online = OnlineStoreSink(configured, stopping, tracks)
    source = EventLogSource(configured, stopping, disk, online.settle, drain=drain, keep_log=keep_log)
    routes = shard_routes(tracks, ROUTES)
    ingested = op.input("log", flow, source)

    def routed(ingested: Ingested) -> list[tuple[str, ShardBatch]]:
        return [(routes[batch.shard], batch) for batch in ingested.updates]

    updates = op.flat_map("updates", ingested, routed)
    shards = ShardLogic.builder(configured, stopping, disk, online.settle_older, tracks)
    states = op.stateful_batch("states", updates, shards)
    op.output("online", states, online)
    return flow


def main(arguments: list[str] | None = None) -> int:
    """Run the velocity flow until SIGTERM or SIGINT (with --drain: to the end of the log)."""
    from streaming.runner import run

    parser = argparse.ArgumentParser(prog="python -m streaming.flow", description=main.__doc__)
    parser.add_argument("--processes", type=int, help="processes (default: TOLLGATE_STREAM_PROCESSES)")
    parser.add_argument("--drain", action="store_true", help="end once everything in the log has been read")
    parser.add_argument("--process-id", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    configured = settings()
    logging.basicConfig(level=configured.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def build(stopping: threading.Event) -> Dataflow:
        return build_flow(configured, stopping, drain=chosen.drain)

    return run(
        "streaming.flow", configured, build,
        folder=configured.home / "stream", processes=chosen.processes or configured.stream.processes,
        process_id=chosen.process_id, forwarded=["--drain"] if chosen.drain else [],
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
