"""What each part of the platform looks like right now, for the status page.

Ages of data are measured on the event-time clock (the newest event known), so that a replay of
2018 reads as 2018 did; whether processes answer, and when runs ended, is wall time.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from fraud.features.entities import CUT_INTERVAL, ENTITIES, PROFILE_TTL
from monitoring.page import Tone
from stores.decisions import decisions_folder
from stores.deployment import DeploymentError, read_deployment
from stores.event_log import stream_name
from stores.lake_files import parquet_files
from stores.models import model_folder, versions
from stores.redis_url import is_cluster
from stores.settings import Settings

_TIMEOUT: Final = 1.5
_SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.eE+-]+|NaN)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its name, how it is, one figure, and lines of detail."""

    name: str
    tone: Tone
    figure: str
    lines: list[str] = field(default_factory=list)
    todo: str = ""


def parts(config: Settings) -> list[Part]:
    """Every part, in the order data flows through them. Never raises for a part that is away."""
    clock = event_clock(config)
    looks: list[Callable[[], Part]] = [
        lambda: lake(config, clock),
        lambda: profiles(config, clock),
        lambda: redis_part(config),
        lambda: event_log(config),
        lambda: stream(config),
        lambda: model(config),
        lambda: service(config),
        lambda: decisions(config),
    ]
    return [look() for look in looks]


def newest(folder: Path, pattern: str) -> Path | None:
    """The last match of a pattern by name."""
    return max(folder.glob(pattern), default=None)


def event_clock(config: Settings) -> datetime | None:
    """The newest event time in the lake or the decision log, or None before there is any."""
    found = []
    for root in (config.lake / "transactions", decisions_folder(config.home)):
        day = newest(root, "date=*")
        files = parquet_files(day) if day else []
        for file in files[-24:]:
            value = _largest(file, "event_timestamp")
            if value is not None:
                found.append(value)
    return max(found, default=None)


def _largest(file: Path, column: str) -> datetime | None:
    try:
        metadata = pq.read_metadata(file)
    except (OSError, ValueError):
        return None
    if column not in metadata.schema.names:
        return None
    place = metadata.schema.names.index(column)
    values = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(place).statistics
        if statistics is not None and statistics.has_min_max:
            values.append(statistics.max)
    moment = max(values, default=None)
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _rows(folder: Path) -> int:
    return sum(pq.read_metadata(file).num_rows for file in parquet_files(folder))


def _labels_known(root: Path, clock: datetime | None) -> str:
    """Up to when labels are known at the event clock. History that was loaded whole has later ones too."""
    days = [folder.name[5:] for folder in sorted(root.glob("date=*"))]
    today = f"{clock:%Y-%m-%d}" if clock else ""
    known = [day for day in days if not today or day <= today]
    if not known:
        return "no label known yet"
    later = len(days) - len(known)
    return f"labels known up to {known[-1]}" + (f", {later} later days loaded" if later else "")


def lake(config: Settings, clock: datetime | None) -> Part:
    root = config.lake / "transactions"
    days = sorted(root.glob("date=*"))
    if not days:
        return Part("Lake", "quiet", "empty", [], "load a dataset: `make load DATA=…`")
    labels = _labels_known(config.lake / "labels", clock)
    return Part(
        "Lake", "good", f"{len(days)} days",
        [
            f"{days[0].name[5:]} to {days[-1].name[5:]}",
            f"{_rows(days[-1]):,} transactions on the last day",
            labels,
            f"newest event {clock:%Y-%m-%d %H:%M} UTC" if clock else "",
        ],
    )  # fmt: skip


def profiles(config: Settings, clock: datetime | None) -> Part:
    cuts = {entity.name: newest(config.lake / "profiles" / entity.name, "cut=*") for entity in ENTITIES}
    named = [cut.name[4:] for cut in cuts.values() if cut]
    if not named:
        return Part("Profiles", "quiet", "no cut yet", [], "compute one: `make materialize CUT=…`")
    oldest = datetime.strptime(min(named), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    age = clock - oldest if clock else CUT_INTERVAL
    late, stale = age > 2 * CUT_INTERVAL, age > PROFILE_TTL
    tone: Tone = "bad" if stale else "watch" if late else "good"
    todo = "run `make materialize` and read what its gate says" if late else ""
    ahead = registry_ahead(datetime.now(UTC))
    if ahead is not None:
        tone = "watch" if tone == "good" else tone
        todo = (
            todo or "nothing is lost: until then every run materializes one ttl again instead of what is new"
        )
    hours = age.total_seconds() / 3600
    lines = [
        f"{len(named)} of {len(ENTITIES)} entities",
        f"{hours:.0f} h behind the newest event, stale after 48",
    ]
    if ahead is not None:
        lines.append(f"the registry's end lies ahead: materialized up to {ahead:%Y-%m-%d %H:%M}, it says")
    return Part("Profiles", tone, f"cut {oldest:%m-%d %H:%M}", lines, todo)


def registry_ahead(now: datetime) -> datetime | None:
    """The newest end of a profile view's materialization in the registry, where it lies ahead of `now`: somebody
    ran `feast materialize-incremental` with a wrong end."""
    from feast.errors import FeastError
    from sqlalchemy.exc import SQLAlchemyError

    from feature_repo.store import open_store

    try:
        views = open_store().list_feature_views()
    except (FeastError, SQLAlchemyError, OSError):
        return None
    ends = [view.most_recent_end_time for view in views if view.most_recent_end_time is not None]
    newest_end = max(ends, default=None)
    return newest_end if newest_end is not None and newest_end > now else None


def redis_part(config: Settings) -> Part:
    from stores.redis_clients import AWAY, ServerError, connect_any

    where = config.redis.address
    try:
        with connect_any(where, timeout=_TIMEOUT, retry=False) as client:
            told = client.info(target_nodes=client.PRIMARIES) if is_cluster(where) else {"": client.info()}
    except (*AWAY, ServerError) as error:
        lines = [f"{where.shown} does not answer", type(error).__name__]
        return Part("Redis", "bad", "away", lines, "start it: `make up`")
    servers: list[dict[str, Any]] = list(told.values())
    keys = sum(server.get(f"db{where.database}", {}).get("keys", 0) for server in servers)
    memory = sum(server["used_memory"] for server in servers)
    connections = sum(server["connected_clients"] for server in servers)
    lines = [f"{memory / 1e6:,.1f} MB in use", f"{connections} connections"]
    if len(servers) > 1:
        lines.append(f"{len(servers)} masters")
    return Part("Redis", "good", f"{keys:,} keys", lines)


def event_log(config: Settings) -> Part:
    if config.event_log.kind == "kafka":
        return Part(
            "Event log", "quiet", "Kafka", [config.kafka.bootstrap, f"topic {config.event_log.topic}"]
        )
    if config.event_log.kind == "jsonl":
        size = sum(
            file.stat().st_size for file in (config.home / "events").glob(f"{config.event_log.topic}-*.jsonl")
        )
        return Part("Event log", "good" if size else "quiet", f"{size / 1e6:.1f} MB", ["JSONL files"])
    from stores.redis_clients import AWAY, ServerError, connect_any

    names = [stream_name(config.event_log.topic, place) for place in range(config.event_log.partitions)]
    try:
        with connect_any(config.event_log_redis, timeout=_TIMEOUT, retry=False) as client:
            length = sum(int(client.xlen(name)) for name in names)
    except (*AWAY, ServerError):
        return Part("Event log", "bad", "away", ["Redis Streams do not answer"], "start it: `make up`")
    return Part(
        "Event log",
        "good" if length else "quiet",
        f"{length:,} events",
        [f"{config.event_log.partitions} Redis Streams"],
    )


def stream(config: Settings) -> Part:
    port = config.stream.metrics_port or _embedded_metrics_port(config)
    text = _fetch(f"http://127.0.0.1:{port}/metrics") if port else None
    if text is None:
        log = config.home / "lake" / "transactions"
        seen = "it does not answer" if port else "its metrics port is off"
        return Part(
            "Stream",
            "quiet",
            "unknown",
            [seen, f"arrival log {'present' if log.exists() else 'absent'}"],
            "start it: `make up`",
        )
    values = samples(text)
    lag, dead = (
        max(values.get("tollgate_stream_lag_seconds", [0.0])),
        sum(values.get("tollgate_stream_dead_letters_total", [0.0])),
    )
    tone: Tone = "bad" if lag > 30 else "watch" if dead else "good"
    lines = [
        f"{sum(values.get('tollgate_stream_events_total', [0.0])):,.0f} events since its start",
        f"{dead:,.0f} dead letters",
    ]
    return Part("Stream", tone, f"{lag:.1f} s behind", lines, "look at the dead letters" if dead else "")


def _embedded_metrics_port(config: Settings) -> int:
    """Where the stream that `make up` started shows its metrics; 0 if it started none."""
    state = config.home / "platform.json"
    return int(json.loads(state.read_bytes()).get("stream_metrics_port", 0)) if state.exists() else 0


def model(config: Settings) -> Part:
    saved = versions(config.home)
    if not saved:
        return Part("Model", "quiet", "none yet", [], "train one: `make training-set`, then `make train`")
    try:
        deployment = read_deployment(config.home)
    except DeploymentError as error:
        return Part("Model", "bad", saved[0], [str(error)], "mend it, or promote again")
    chosen = deployment.champion if deployment.champion in saved else saved[0]
    facts = json.loads((model_folder(config.home, chosen) / "manifest.json").read_bytes())
    figures = facts.get("metrics") or {}
    lines = (
        [f"average precision {figures['average_precision']:.3f}, AUC {figures['auc']:.3f}"]
        if "auc" in figures
        else []
    )
    lines.append(f"{len(saved)} version{'s' if len(saved) > 1 else ''} kept")
    if deployment.challenger:
        lines.append(f"challenger {deployment.challenger} decides {deployment.share:.0%}")
    return Part("Model", "good", chosen, lines)


def service(config: Settings) -> Part:
    base = f"http://{config.serve.host}:{config.serve.port}"
    if config.http.metrics_port:
        base = f"http://{config.http.metrics_host}:{config.http.metrics_port}"
    text = _fetch(f"{base}/metrics")
    if text is None and config.serve.tokens_file is not None and not config.http.metrics_port:
        seen = "its metrics are behind a token"
        return Part("Service", "quiet", "unknown", [seen], "give it TOLLGATE_SERVE_METRICS_PORT")
    if text is None:
        return Part("Service", "bad", "away", [f"{base} does not answer"], "start it: `make up`")
    values = samples(text)
    total = sum(values.get("tollgate_decisions_total", [0.0]))
    degraded = sum(values.get("tollgate_degraded_total", [0.0]))
    open_breakers = max(values.get("tollgate_breaker_state", [0.0])) >= 2
    share = degraded / total if total else 0.0
    tone: Tone = "bad" if open_breakers else "watch" if share > 0.01 else "good"
    lines = [
        f"{share:.2%} of answers degraded",
        "a circuit breaker is open" if open_breakers else "circuit breakers closed",
    ]
    return Part(
        "Service",
        tone,
        f"{total:,.0f} decisions",
        lines,
        "look at Redis and the model" if open_breakers else "",
    )


def decisions(config: Settings) -> Part:
    root = decisions_folder(config.home)
    day = newest(root, "date=*")
    if day is None:
        return Part("Decision log", "quiet", "empty", [], "score something: the log appears within seconds")
    return Part(
        "Decision log",
        "good",
        f"{_rows(day):,} decisions",
        [f"on {day.name[5:]}", f"{len(list(root.glob('date=*')))} days kept"],
    )


def samples(text: str) -> dict[str, list[float]]:
    """Values of each metric of a Prometheus text, whatever their labels."""
    found: dict[str, list[float]] = {}
    for name, _, value in _SAMPLE.findall(text):
        found.setdefault(name, []).append(float(value))
    return found


def _fetch(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError, ValueError):
        return None
