"""The one settings object: read once from the environment, validated at start, then frozen.

Every variable is `TOLLGATE_` + the field's name in capitals. An error names the variable and
what it should be. `docs/settings.md` is generated from the descriptions below.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parent.parent

Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(ValueError):
    """A setting that cannot be used; the text names the variable and says what it should be."""


class Settings(BaseSettings):
    """Every difference between environments."""

    model_config = SettingsConfigDict(env_prefix="TOLLGATE_", frozen=True, extra="forbid")

    home: Path = Field(
        REPOSITORY / ".tollgate", description="folder of everything mutable: lake, registry, models, logs"
    )
    results: Path = Field(
        REPOSITORY / "results", description="folder of reports, evidence and benchmark figures"
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6390/0",
        pattern=r"^(rediss?|redis\+sentinel|redis\+cluster|rediss\+cluster)://",
        description="the online store; rediss:// for TLS, redis+cluster:// and redis+sentinel:// for those",
    )
    feast_project: str = Field(
        "tollgate", pattern="^[a-z][a-z0-9_]*$", description="Feast project, part of every online key"
    )
    registry_url: str | None = Field(
        None,
        description="database of Feast's registry as a SQLAlchemy URL, when it is not the SQLite file in the home folder",
    )
    event_log: Literal["redis", "kafka", "jsonl"] = Field(
        "redis", description="where transactions flow: Redis Streams, Kafka or JSONL files"
    )
    event_log_url: str | None = Field(
        None, description="Redis of the event log, when it is not the online store"
    )
    kafka_bootstrap: str = Field("127.0.0.1:9092", description="bootstrap servers of the Kafka event log")
    topic: str = Field(
        "transactions", pattern="^[a-z][a-z0-9._-]*$", description="topic (or stream prefix) of transactions"
    )
    partitions: int = Field(2, ge=1, le=256, description="partitions of the event log")
    stream_processes: int = Field(1, ge=1, le=64, description="processes of the velocity flow")
    stream_port: Port = Field(
        7440, description="first loopback port of the flow's own cluster, when it has several processes"
    )
    stream_batch: int = Field(
        16_000, ge=1, le=20_000, description="most events the flow reads from one partition at once"
    )
    stream_snapshot_seconds: float = Field(
        4.0, ge=0.1, le=60, description="seconds between recovery snapshots of the flow"
    )
    stream_dedupe_ids: int = Field(
        131_072,
        ge=1_024,
        le=4_194_304,
        description="newest transaction ids remembered per partition, to drop duplicates",
    )
    stream_dedupe_hours: float = Field(
        24.0,
        gt=0,
        le=720,
        description="event-time hours after which a remembered transaction id is forgotten",
    )
    stream_trim: bool = Field(
        False, description="delete events behind the recovery snapshot from Redis Streams"
    )
    stream_patience_seconds: int = Field(
        600,
        ge=1,
        le=86_400,
        description="how long the flow waits for a Redis or Kafka that is away before it ends with an error",
    )
    stream_huge_pages: bool = Field(
        True, description="gather the flow's memory in huge pages, where the kernel can (Linux 6.1)"
    )
    stream_metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="port of the flow's Prometheus metrics (further processes count up); 0 turns them off",
    )
    authorizations_topic: str = Field(
        "authorizations",
        pattern="^[a-z][a-z0-9._-]*$",
        description="topic of transactions to score from the event log instead of HTTP",
    )
    predictions_topic: str = Field(
        "predictions", pattern="^[a-z][a-z0-9._-]*$", description="topic of the answers to them"
    )
    score_url: str | None = Field(
        None,
        pattern="^https?://",
        description="scoring service that the scoring flow asks; this machine's without it",
    )
    score_token_file: Path | None = Field(
        None, description="file with the bearer token that the scoring flow sends"
    )
    spark_master: str = Field("local[2]", description="Spark master URL")
    spark_memory: str = Field("3g", pattern="^[0-9]+[mg]$", description="memory of the Spark driver")
    label_maturity_days: int = Field(
        7, ge=0, le=120, description="days until a transaction without a fraud label counts as genuine"
    )
    cut_lag_minutes: int = Field(
        15, ge=0, le=360, description="minutes from an aggregate cut to its visibility online"
    )
    serve_host: str = Field("127.0.0.1", description="address the service listens on")
    serve_port: Port = Field(3000, description="port the service listens on")
    feature_deadline_ms: int = Field(30, ge=1, le=1000, description="longest wait for online features")
    serve_queue: int = Field(
        2048,
        ge=1,
        le=100_000,
        description="most transactions that may wait in one worker before it answers 503",
    )
    serve_wait_ms: int = Field(
        10,
        ge=1,
        le=60_000,
        description="longest that the oldest of as many waiting transactions as can be under way has waited before new ones get 503",
    )
    serve_batch: int = Field(32, ge=1, le=1024, description="most transactions in one micro-batch")
    serve_in_flight: int = Field(
        2, ge=1, le=16, description="micro-batches that one worker has under way at once"
    )
    serve_workers: int = Field(1, ge=1, le=64, description="worker processes of the scoring service")
    serve_pin: bool = Field(
        True,
        description="keep each worker to a processor of its own, where there are as many as workers (at least 2)",
    )
    serve_tracing: bool = Field(False, description="make OpenTelemetry spans of scoring requests")
    remote_model_url: str | None = Field(
        None,
        pattern="^https?://",
        description="server of the Open Inference Protocol that computes the champion's raw scores; this process without it",
    )
    remote_model_timeout_ms: int = Field(
        50,
        ge=1,
        le=10_000,
        description="longest wait for the model server before the model in this process scores",
    )
    tokens_file: Path | None = Field(
        None,
        description="JSON file of clients, token digests and scopes; without it only loopback callers are served",
    )
    rules_file: Path | None = Field(
        None, description="YAML file of decision rules; bentos/rules/rules.yaml without it"
    )
    client_rate: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="transactions per second that one client may send, 0 for no limit; a client's own rate in the tokens file wins",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least severe message that is logged"
    )

    @cached_property
    def lake(self) -> Path:
        """Root of the offline data (parquet)."""
        return self.home / "lake"

    @property
    def event_log_redis(self) -> str:
        return self.event_log_url or self.redis_url


def load_settings() -> Settings:
    """Read the environment afresh; raise `SettingsError` naming every unusable variable."""
    try:
        return Settings()  # type: ignore[call-arg]  # values come from the environment
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = str(problem["loc"][0])
            known = Settings.model_fields.get(field)
            meaning = f" ({known.description})" if known else ""
            lines.append(f"TOLLGATE_{field.upper()}: {problem['msg']}{meaning}")
        raise SettingsError("; ".join(lines)) from None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process."""
    return load_settings()
