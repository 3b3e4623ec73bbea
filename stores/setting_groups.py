"""The settings of each room: what each means, its default, its bounds and the variable that sets it.

`stores/settings.py` reads them. The alias is the variable's whole name, so that it can be searched for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from stores.redis_url import RedisAddress, parse_redis_url


def _usable(url: str) -> str:
    parse_redis_url(url)  # raises what is wrong with it
    return url


Port = Annotated[int, Field(ge=1, le=65535)]
RedisUrl = Annotated[str, AfterValidator(_usable)]
TopicName = Annotated[str, Field(pattern="^[a-z][a-z0-9._-]*$")]


def _listed(value: object) -> object:
    """``a,b`` as its items."""
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


class Group(BaseModel):
    """Settings of one room."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class RedisSettings(Group):
    """The online store."""

    url: RedisUrl = Field(
        "redis://127.0.0.1:6390/0", alias="TOLLGATE_REDIS_URL",
        description="the online store; rediss:// for TLS, unix://, redis+sentinel:// and redis+cluster:// (docs/service.md)",
    )  # fmt: skip

    @property
    def address(self) -> RedisAddress:
        """The URL's parts."""
        return parse_redis_url(self.url)


class ContractSettings(Group):
    """What a transaction may hold."""

    reference_rates: Path | None = Field(
        None, alias="TOLLGATE_REFERENCE_RATES",
        description="YAML file of US dollars for one unit of each currency, by which features compare amounts; the program's own rates without it",
    )  # fmt: skip

    token_key_file: Path | None = Field(
        None, alias="TOLLGATE_TOKEN_KEY_FILE",
        description="file with the key (64 hexadecimal digits) of the tokens that an import makes; one in the home folder without it",
    )  # fmt: skip
    cardless_fields: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), alias="TOLLGATE_CARDLESS_FIELDS",
        description="fields, by commas, whose ids hold no card number although they look like some: they are not searched for any",
    )  # fmt: skip


class FeastSettings(Group):
    """The feature store."""

    project: str = Field(
        "tollgate", alias="TOLLGATE_FEAST_PROJECT", pattern="^[a-z][a-z0-9_]*$",
        description="Feast project, part of every online key",
    )  # fmt: skip
    registry_url: str | None = Field(
        None, alias="TOLLGATE_REGISTRY_URL",
        description="database of Feast's registry as a SQLAlchemy URL, when it is not the SQLite file in the home folder",
    )  # fmt: skip
    own: Path | None = Field(
        None, alias="TOLLGATE_FEATURES",
        description="folder of a team's own definitions (`*.py`), which `feast apply` registers beside the platform's; "
        "without it `feature_repo/own`",
    )  # fmt: skip
    plan: Path | None = Field(
        None, alias="TOLLGATE_FEATURE_PLAN",
        description="file of what is declared, written by `feast apply` and read by every process when it starts; "
        "without it `features/declared.json` in the home folder",
    )  # fmt: skip


class EventLogSettings(Group):
    """Where transactions flow, and under which names."""

    kind: Literal["redis", "kafka", "jsonl"] = Field(
        "redis", alias="TOLLGATE_EVENT_LOG", description="where transactions flow: Redis Streams, Kafka or JSONL files"
    )  # fmt: skip
    url: RedisUrl | None = Field(
        None, alias="TOLLGATE_EVENT_LOG_URL", description="Redis of the event log, when it is not the online store"
    )  # fmt: skip
    topic: TopicName = Field(
        "transactions", alias="TOLLGATE_TOPIC", description="topic (or stream prefix) of transactions"
    )
    partitions: int = Field(
        2, alias="TOLLGATE_PARTITIONS", ge=1, le=256, description="partitions of the event log"
    )
    authorizations_topic: TopicName = Field(
        "authorizations", alias="TOLLGATE_AUTHORIZATIONS_TOPIC",
        description="topic of transactions to score from the event log instead of HTTP",
    )  # fmt: skip
    predictions_topic: TopicName = Field(
        "predictions", alias="TOLLGATE_PREDICTIONS_TOPIC", description="topic of the answers to them"
    )
    labels_topic: TopicName = Field(
        "labels", alias="TOLLGATE_LABELS_TOPIC",
        description="Kafka topic of labels, each as in POST /v1/labels; read by `tollgate outcomes follow` where it exists",
    )  # fmt: skip
    outcomes_topic: TopicName = Field(
        "outcomes", alias="TOLLGATE_OUTCOMES_TOPIC",
        description="Kafka topic of outcomes, each as in POST /v1/outcomes; read by the same where it exists",
    )  # fmt: skip


class KafkaSettings(Group):
    """The Kafka event log. Every property of its client (librdkafka) is a setting too (docs/kafka.md)."""

    bootstrap: str = Field(
        "127.0.0.1:9092", alias="TOLLGATE_KAFKA_BOOTSTRAP", description="bootstrap servers of the Kafka event log"
    )  # fmt: skip
    group: str = Field(
        "tollgate-stream", alias="TOLLGATE_KAFKA_GROUP", min_length=1,
        description="consumer group under which positions are committed, so that Kafka's own tools show the lag",
    )  # fmt: skip
    properties: dict[str, str] = Field(
        {}, alias="TOLLGATE_KAFKA_PROPERTIES", repr=False,
        description="properties of Kafka's client as a JSON object; each is also a variable of its own, "
        "`TOLLGATE_KAFKA_SECURITY_PROTOCOL` for `security.protocol`, and with `_FILE` behind it names a file that holds the value",
    )  # fmt: skip
    letters_topic: TopicName | None = Field(
        None, alias="TOLLGATE_KAFKA_LETTERS_TOPIC",
        description="topic that dead letters go to, besides their files; none without it",
    )  # fmt: skip

    @field_validator("properties", mode="before")
    @classmethod
    def _of_text(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value


class StreamSettings(Group):
    """The velocity flow and the scoring flow."""

    processes: int = Field(
        1, alias="TOLLGATE_STREAM_PROCESSES", ge=1, le=64, description="processes of the velocity flow"
    )
    port: Port = Field(
        7440, alias="TOLLGATE_STREAM_PORT",
        description="first loopback port of the flow's own cluster, when it has several processes",
    )  # fmt: skip
    ports_fenced: bool = Field(
        False, alias="TOLLGATE_STREAM_PORTS_FENCED",
        description="nobody else reaches these ports (a pod, a container, a host without other users): several processes need it said",
    )  # fmt: skip
    batch: int = Field(
        16_000, alias="TOLLGATE_STREAM_BATCH", ge=1, le=20_000,
        description="most events the flow reads from one partition at once",
    )  # fmt: skip
    snapshot_seconds: float = Field(
        4.0, alias="TOLLGATE_STREAM_SNAPSHOT_SECONDS", ge=0.1, le=60,
        description="seconds between recovery snapshots of the flow",
    )  # fmt: skip
    dedupe_ids: int = Field(
        131_072, alias="TOLLGATE_STREAM_DEDUPE_IDS", ge=1_024, le=4_194_304,
        description="newest transaction ids remembered per partition, to drop duplicates",
    )  # fmt: skip
    dedupe_hours: float = Field(
        24.0, alias="TOLLGATE_STREAM_DEDUPE_HOURS", gt=0, le=720,
        description="event-time hours after which a remembered transaction id is forgotten",
    )  # fmt: skip
    trim: bool = Field(
        False, alias="TOLLGATE_STREAM_TRIM", description="delete events behind the recovery snapshot from Redis Streams"
    )  # fmt: skip
    patience_seconds: int = Field(
        600, alias="TOLLGATE_STREAM_PATIENCE_SECONDS", ge=1, le=86_400,
        description="how long the flow waits for a Redis or Kafka that is away before it ends with an error",
    )  # fmt: skip
    metrics_port: int = Field(
        0, alias="TOLLGATE_STREAM_METRICS_PORT", ge=0, le=65535,
        description="port of the flow's Prometheus metrics (further processes count up); 0 turns them off",
    )  # fmt: skip
    metrics_host: str = Field(
        "127.0.0.1", alias="TOLLGATE_STREAM_METRICS_HOST", description="address of that port"
    )
    score_url: str | None = Field(
        None, alias="TOLLGATE_SCORE_URL", pattern="^https?://",
        description="scoring service that the scoring flow asks; this machine's without it",
    )  # fmt: skip
    score_token_file: Path | None = Field(
        None,
        alias="TOLLGATE_SCORE_TOKEN_FILE",
        description="file with the bearer token that the scoring flow sends",
    )


class KeySettings(Group):
    """What is signed and verified."""

    file: Path | None = Field(
        None, alias="TOLLGATE_KEYS_FILE",
        description="file of the deployment's keys, the same on every host and outside of all storage; without it "
        "`tollgate/keys.json` in the user's configuration folder, made at the first start",
    )  # fmt: skip
    required: bool = Field(
        False, alias="TOLLGATE_KEYS_REQUIRED",
        description="refuse to make keys: set it wherever several hosts have to trust each other",
    )  # fmt: skip


class SparkSettings(Group):
    """Batch aggregates and point-in-time joins."""

    master: str = Field("local[2]", alias="TOLLGATE_SPARK_MASTER", description="Spark master URL")
    memory: str = Field(
        "3g", alias="TOLLGATE_SPARK_MEMORY", pattern="^[0-9]+[mg]$", description="memory of the Spark driver"
    )


class HistorySettings(Group):
    """When what is known offline became known."""

    label_maturity_days: int = Field(
        7, alias="TOLLGATE_LABEL_MATURITY_DAYS", ge=0, le=120,
        description="days until a transaction without a fraud label counts as genuine",
    )  # fmt: skip
    cut_lag_minutes: int = Field(
        15, alias="TOLLGATE_CUT_LAG_MINUTES", ge=0, le=360,
        description="minutes from an aggregate cut to its visibility online",
    )  # fmt: skip
