"""Prometheus metrics of the flow. Everything is counted by batch, never by event."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, start_http_server

EVENTS = Counter("tollgate_stream_events", "events accepted", ["partition"])
DUPLICATES = Counter("tollgate_stream_duplicates", "events dropped as duplicates", ["partition"])
LATE = Counter(
    "tollgate_stream_late_events", "events behind their partition's event-time clock", ["partition"]
)
DEAD_LETTERS = Counter("tollgate_stream_dead_letters", "events that broke the contract", ["partition"])
UNVERIFIED = Counter(
    "tollgate_unverified", "control records and snapshots that no key in force signed", ["what"]
)
for what in ("seed", "spent", "rewrite", "snapshot"):  # so that the first one is an increase
    UNVERIFIED.labels(what)
KEYS_REFUSED = Gauge("tollgate_keys_refused", "1 while the keyring is refused: the keys before stay in force")
STATES_FAILED = Counter(
    "tollgate_stream_states_failed", "updates and states that failed and went aside", ["entity"]
)
LAG = Gauge(
    "tollgate_stream_lag",
    "how far reading is behind the log: seconds (Redis), events (Kafka), bytes (JSONL)",
    ["partition"],
)  # fmt: skip
LAG_SECONDS = Gauge(
    "tollgate_stream_lag_seconds",
    "age of the newest event read, while the log holds more; 0 when all is read, or where it has no times",
    ["partition"],
)
CHANGES = Counter(
    "tollgate_stream_changes", "outcomes after which another part of a payment counts as spent", ["partition"]
)  # fmt: skip
TOMBSTONES = Counter("tollgate_stream_tombstones", "records without a value, passed over", ["partition"])
MISPLACED = Counter(
    "tollgate_stream_misplaced",
    "events in another partition than their customer's, sent to theirs",
    ["partition"],
)  # fmt: skip
UNREAD_PARTITIONS = Gauge(
    "tollgate_stream_unread_partitions", "partitions that the topic has got since the flow started"
)
LETTERS_UNSENT = Counter("tollgate_stream_letters_unsent", "dead letters that their topic did not take")
CLOCK = Gauge("tollgate_stream_event_time_seconds", "event-time clock of a partition", ["partition"])
ENTITIES_HELD = Gauge("tollgate_stream_entities", "entities with a state", ["entity", "shard"])
STATE_BYTES = Gauge("tollgate_stream_state_bytes", "packed bytes of those states", ["entity", "shard"])
FRESHNESS = Histogram(
    "tollgate_stream_freshness_seconds",
    "from an event's arrival in the log to its state being visible in Redis",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 1, 5, 30),
)  # fmt: skip
SCORED = Counter("tollgate_stream_scored", "authorizations scored and published")
WRITTEN = Counter("tollgate_stream_states_written", "states written to Redis")
REFUSED = Counter("tollgate_stream_states_refused", "states that Redis already held in a newer version")
SINK_RETRIES = Counter("tollgate_stream_sink_retries", "writes repeated because Redis was away")
READ_RETRIES = Counter("tollgate_stream_read_retries", "reads repeated because the event log was away")


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Answer Prometheus on `port` of the address `host`; 0 does nothing."""
    if port:
        start_http_server(port, addr=host)
