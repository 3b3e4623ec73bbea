"""The settings of what answers requests: the service, its HTTP, its model server, and the machine beneath.

As in `stores/setting_groups.py`, the alias is the variable's whole name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from stores.setting_groups import Group, Port


class ServeSettings(Group):
    """The scoring service."""

    host: str = Field("127.0.0.1", alias="TOLLGATE_SERVE_HOST", description="address the service listens on")
    port: Port = Field(3000, alias="TOLLGATE_SERVE_PORT", description="port the service listens on")
    workers: int = Field(
        1, alias="TOLLGATE_SERVE_WORKERS", ge=1, le=64, description="worker processes of the scoring service"
    )
    feature_deadline_ms: int = Field(
        30,
        alias="TOLLGATE_FEATURE_DEADLINE_MS",
        ge=1,
        le=1000,
        description="longest wait for online features",
    )
    queue: int = Field(
        2048, alias="TOLLGATE_SERVE_QUEUE", ge=1, le=100_000,
        description="most transactions that may wait in one worker before it answers 503",
    )  # fmt: skip
    wait_ms: int = Field(
        10, alias="TOLLGATE_SERVE_WAIT_MS", ge=1, le=60_000,
        description="admission bound: new transactions get 503 once the head of a full queue has waited this long",
    )  # fmt: skip
    batch: int = Field(
        32, alias="TOLLGATE_SERVE_BATCH", ge=1, le=1024, description="most transactions in one micro-batch"
    )
    in_flight: int = Field(
        2, alias="TOLLGATE_SERVE_IN_FLIGHT", ge=1, le=16, description="micro-batches that one worker has under way at once"
    )  # fmt: skip
    late_seconds: float = Field(
        900.0, alias="TOLLGATE_SERVE_LATE_SECONDS", ge=1, le=7200,
        description="how old an event may be when it is received and still count at its own time",
    )  # fmt: skip
    off_clock: Literal["receipt", "refuse"] = Field(
        "receipt", alias="TOLLGATE_SERVE_OFF_CLOCK",
        description="what becomes of an event that is older, or more than 5 minutes ahead: it counts when it was received, and its "
        "answer says so in `degraded`; or it is refused with 422",
    )  # fmt: skip
    predictions: bool = Field(
        False, alias="TOLLGATE_SERVE_PREDICTIONS",
        description="with Kafka, publish every answer to TOLLGATE_PREDICTIONS_TOPIC, HTTP's too; the scoring flow then leaves it to the service",
    )  # fmt: skip
    leave_seconds: float = Field(
        3.0, alias="TOLLGATE_SERVE_LEAVE_SECONDS", ge=0, le=60,
        description="seconds from SIGTERM until a worker ends: it is not ready, and closes connections with their next answer; "
        "give a load balancer time to notice",
    )  # fmt: skip
    burst_seconds: int = Field(
        30, alias="TOLLGATE_SERVE_BURST_SECONDS", ge=0, le=600,
        description="how long a decided payment counts for the next ones of its card while the stream has not counted it; 0 turns it off",
    )  # fmt: skip
    replay: bool = Field(
        False, alias="TOLLGATE_SERVE_REPLAY",
        description="local callers, where there are no tokens, replay the past: the event times that they state count, however old "
        "(with tokens the scope replay says who does)",
    )  # fmt: skip
    needs_model: bool = Field(
        False, alias="TOLLGATE_SERVE_NEEDS_MODEL",
        description="be ready (/readyz) only with a model in service; without it the rules alone make a service ready, and answers say so",
    )  # fmt: skip
    tracing: bool = Field(
        False, alias="TOLLGATE_SERVE_TRACING", description="make OpenTelemetry spans of scoring requests"
    )
    unsigned_models: Literal["refuse", "allow"] = Field(
        "refuse", alias="TOLLGATE_UNSIGNED_MODELS",
        description="what to do with a model that no key of this deployment signed; allow serves whatever the store's writers put there",
    )  # fmt: skip
    trial_seconds: int = Field(
        60, alias="TOLLGATE_MODEL_TRIAL_SECONDS", ge=1, le=3_600,
        description="seconds that a model may take to be loaded and asked in a process of its own, before it serves",
    )  # fmt: skip
    trial_megabytes: int = Field(
        1024, alias="TOLLGATE_MODEL_TRIAL_MEGABYTES", ge=128, le=65_536,
        description="megabytes of memory that it may take for that",
    )  # fmt: skip
    heads: Path | None = Field(
        None, alias="TOLLGATE_SERVE_HEADS",
        description="folder on another disk or host, where each worker puts out the head of its decision log's chain every minute; "
        "without it they are in the service's log alone",
    )  # fmt: skip
    heads_redis: str | None = Field(
        None, alias="TOLLGATE_SERVE_HEADS_REDIS",
        description="address of another Redis, whose stream tollgate:heads gets them as well",
    )  # fmt: skip
    heads_topic: str | None = Field(
        None, alias="TOLLGATE_SERVE_HEADS_TOPIC", pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="Kafka topic (of TOLLGATE_KAFKA_BOOTSTRAP) that gets them as well",
    )  # fmt: skip
    tokens_file: Path | None = Field(
        None, alias="TOLLGATE_TOKENS_FILE",
        description="JSON file of clients, token digests and scopes; without it only loopback callers are served",
    )  # fmt: skip
    client_rate: int = Field(
        0, alias="TOLLGATE_CLIENT_RATE", ge=0, le=1_000_000,
        description="transactions per second that one client may send, 0 for no limit; a client's own rate in the tokens file wins",
    )  # fmt: skip
    rules_file: Path | None = Field(
        None, alias="TOLLGATE_RULES_FILE", description="YAML file of decision rules; bentos/rules/rules.yaml without it"
    )  # fmt: skip


#: Names without spaces, separated by commas, or none.
_NAMES = r"^([^\s,]+(,[^\s,]+)*)?$"


class HttpSettings(Group):
    """The scoring service's HTTP: what callers may send before it is known who they are."""

    lane: bool = Field(
        True, alias="TOLLGATE_SERVE_LANE",
        description="answer plain score requests inside the server's HTTP protocol; without it all of them go by ASGI, to the same answers",
    )  # fmt: skip
    head_bytes: int = Field(
        16_384, alias="TOLLGATE_SERVE_HEAD_BYTES", ge=1_024, le=1_048_576,
        description="most bytes of a request's line and headers (431 beyond)",
    )  # fmt: skip
    head_count: int = Field(
        64, alias="TOLLGATE_SERVE_HEAD_COUNT", ge=8, le=1_000, description="most headers of a request (431 beyond)"
    )  # fmt: skip
    head_seconds: float = Field(
        5.0, alias="TOLLGATE_SERVE_HEAD_SECONDS", ge=0.1, le=300,
        description="longest from a connection's opening, and from a request's first byte, to the end of its headers (408 and closed beyond)",
    )  # fmt: skip
    connections: int = Field(
        4_096, alias="TOLLGATE_SERVE_CONNECTIONS", ge=8, le=1_000_000,
        description="most open connections of one worker (503 and closed beyond)",
    )  # fmt: skip
    peer_connections: int = Field(
        1_024, alias="TOLLGATE_SERVE_PEER_CONNECTIONS", ge=1, le=1_000_000,
        description="most open connections of one worker from one address (an IPv6 network of 64 bits); raise it where one proxy brings all callers",
    )  # fmt: skip
    hosts: str = Field(
        "", alias="TOLLGATE_SERVE_HOSTS", pattern=_NAMES,
        description="names in Host, comma-separated, under which local callers are served without tokens, beside the loopback's own",
    )  # fmt: skip
    origins: str = Field(
        "", alias="TOLLGATE_SERVE_ORIGINS", pattern=_NAMES,
        description="origins of web pages, comma-separated (http://localhost:8080), that may call where no tokens are; others are refused",
    )  # fmt: skip
    docs: Literal["clients", "open", "off"] = Field(
        "clients", alias="TOLLGATE_SERVE_DOCS",
        description="who may read /, /docs.json and /schema.json: callers with any token (local ones where there are none), anybody, or nobody",
    )  # fmt: skip
    metrics_port: int = Field(
        0, alias="TOLLGATE_SERVE_METRICS_PORT", ge=0, le=65535,
        description="port on which every worker answers /metrics for all of them, without a token; 0 leaves it to the service's port and the scope metrics",
    )  # fmt: skip
    metrics_host: str = Field(
        "127.0.0.1", alias="TOLLGATE_SERVE_METRICS_HOST", description="address of that port"
    )


class RemoteModelSettings(Group):
    """A model server that scores in the champion's place."""

    url: str | None = Field(
        None, alias="TOLLGATE_REMOTE_MODEL_URL", pattern="^https?://",
        description="server of the Open Inference Protocol that computes the champion's raw scores; this process without it",
    )  # fmt: skip
    timeout_ms: int = Field(
        50, alias="TOLLGATE_REMOTE_MODEL_TIMEOUT_MS", ge=1, le=10_000,
        description="longest wait for the model server before the model in this process scores",
    )  # fmt: skip


class MachineSettings(Group):
    """What is asked of the operating system. `make bench-machine` shows what each is worth alone."""

    pin: bool = Field(
        True, alias="TOLLGATE_MACHINE_PIN",
        description="keep each worker to a processor of its own, where there are as many as workers (at least 2)",
    )  # fmt: skip
    behind: bool = Field(
        True, alias="TOLLGATE_MACHINE_BEHIND",
        description="give what works beside a worker (log conversion, registry reads) the lowest priority",
    )  # fmt: skip
    spare_time: bool = Field(
        True, alias="TOLLGATE_MACHINE_SPARE_TIME",
        description="convert the decision log while a processor is idle, or after some seconds",
    )  # fmt: skip
    garbage: bool = Field(
        True, alias="TOLLGATE_MACHINE_GARBAGE", description="collect Python's cyclic garbage seldom"
    )
    timers: bool = Field(
        True, alias="TOLLGATE_MACHINE_TIMERS",
        description="let the flow's idle main thread wake late, so that it does not take the interpreter from the others",
    )  # fmt: skip
    code_folder: Path | None = Field(
        None, alias="TOLLGATE_MACHINE_CODE_FOLDER",
        description="folder that only this user may write, for loops compiled to machine code; without it beside the modules, "
        "in the user's cache or in the system's temporary folder",
    )  # fmt: skip
