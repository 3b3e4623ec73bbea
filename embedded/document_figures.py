"""Writes `docs/figures.md` from what the commands left in `results/`: `make figures`.

One row a figure, with its target and the command that measures it. A row whose file is not there
keeps the value of the run that wrote it, so that one benchmark can be run again alone.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from stores.settings import REPOSITORY, settings

#: What stands in the page for a figure that no run has given yet.
UNKNOWN: Final = "not measured"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `file` below results/, `path` into its JSON (dotted; `name[key]` finds a named entry).

    `target` is what it should be, in words; empty for a figure that only informs. `of` turns the JSON value
    into text; without it, numbers get four digits.
    """

    meaning: str
    file: str
    path: str
    unit: str = ""
    target: str = ""
    of: Callable[[Any], str] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of one command."""

    title: str
    command: str
    figures: Sequence[Figure]


def _total(field: str) -> Callable[[Any], str]:
    """The sum of `field` over a list of entries."""
    return lambda entries: f"{sum(entry[field] for entry in entries):,}"


def _worst(field: str) -> Callable[[Any], str]:
    return lambda entries: f"{max(entry[field] for entry in entries):.4g}"


def _found(entries: Any) -> str:
    return f"{sum(bool(entry['detected']) for entry in entries)} of {len(entries)}"


def _held(entries: Any) -> str:
    return f"{sum(bool(entry['held']) for entry in entries)} of {len(entries)}"


def _right(kinds: Any) -> str:
    return ", ".join(str(each["right"]) for each in kinds.values())


def _stopped(kind: str) -> Callable[[Any], str]:
    """The most that patterns of a kind stop, as a multiple of the first, which is undisturbed."""

    def of(entries: Any) -> str:
        shares = [(each["kind"], each["review_rate"] + each["block_rate"]) for each in entries]
        return f"{max(share for found, share in shares if found == kind) / shares[0][1]:.2f}"

    return of


_MISSING: Final = "bench/missing.json"
_SERVING: Final = "bench/serving.json"
_KEYED: Final = "bench/keyed.json"
_STREAM: Final = "bench/streaming.json"
GROUPS: Final = (
    Group("The whole loop, on synthetic transactions", "make demo", (
        Figure("the demo, from data to drift report", "summary.json", "seconds", "s", "under 300"),
        Figure("largest memory of all its processes", "summary.json", "peak_memory_mib", "MiB"),
        Figure("served rows that differ from the rebuild", "summary.json", "parity.mismatched_rows", "", "0"),
        Figure("rows compared", "summary.json", "parity.rows"),
        Figure("event to visible in the online store, p50", "summary.json", "freshness_p50_ms", "ms"),
        Figure("average precision on the replayed day", "summary.json", "average_precision"),
        Figure("Brier score (the base rate's: see below)", "summary.json", "brier", "", "below the base rate's"),
        Figure("Brier score of always saying the base rate", "summary.json", "brier_base_rate"),
    )),
    Group("Scoring over HTTP", "make bench-serving", (
        Figure("requests at saturation, one worker", _SERVING, "single.requests_per_second.tollgate", "a second"),
        Figure("the same, of a raw ASGI app with this engine", _SERVING, "single.ratio_to_floor", "", "at least 0.85"),
        Figure("the same, of FastAPI with ONNX Runtime", _SERVING, "single.ratio_to_fastapi_onnx", "", "at least 4"),
        Figure("the same, of Feast's SDK behind FastAPI", _SERVING, "single.ratio_to_feast_sdk", "", "at least 10"),
        Figure("a lone request's p50, of the raw app's", _SERVING, "lone.p50_ratio_to_floor", "", "at most 1.3"),
        Figure("1,000 requests/s for 60 s: p50", _SERVING, "rate_1000.p50_ms", "ms", "under 3"),
        Figure("the same: p99", _SERVING, "rate_1000.p99_ms", "ms", "under 15"),
        Figure("the same: errors", _SERVING, "rate_1000.errors", "", "0"),
        Figure("bulk of 64: transactions, of the raw app", _SERVING, "bulk_64.ratio_to_floor", "", "at least 0.7"),
        Figure("two workers, of one", _SERVING, "workers_2.ratio_to_one", "", "at least 1.3"),
        Figure("online read of one row, of raw HMGET and protobuf", _SERVING, "read.rows_1", "", "at most 1"),
        Figure("an entity in the store: profile and state", _SERVING, "redis_store.entity_bytes", "bytes"),
    )),
    Group("Faults at 500 requests/s", "make chaos-serving", (
        Figure("requests over all faults", "chaos/serving.json", "faults", of=_total("requests")),
        Figure("requests without an answer", "chaos/serving.json", "faults", "", "0", _total("unanswered")),
        Figure("longest time to recover", "chaos/serving.json", "faults", "s", "under 5", _worst("recovery_s")),
    )),
    Group("An outage, and strangers", "make bench-missing", (
        Figure("undisturbed average precision, of a model that never missed a view", _MISSING, "ap_kept", "", "at least 0.99"),
        Figure("stopped without everything, of undisturbed", _MISSING, "patterns", "times", "at most 3", _stopped("everything")),
        Figure("stopped without a view, of undisturbed, at worst", _MISSING, "patterns", "times", "at most 2", _stopped("view")),
        Figure("stopped without an engine, of undisturbed, at worst", _MISSING, "patterns", "times", "at most 3", _stopped("engine")),
        Figure("genuine first transactions that are reviewed", _MISSING, "strangers.review_rate"),
    )),
    Group("Redis frozen for a minute at 300/s", "make bench-outage", (
        Figure("stopped in that minute, of undisturbed", "bench/outage.json", "times_undisturbed", "times", "at most 3"),
        Figure("recall of its frauds", "bench/outage.json", "recall"),
        Figure("the same, of the rules alone", "bench/outage.json", "recall_of_rules_alone"),
    )),
    Group("Experiments that were simulated", "make bench-experiments", (
        Figure("right verdicts of 20: challenger better, equal, worse", "bench/experiments.json", "", "", "at least 19 each", _right),
    )),
    Group("Attempts to break it", "make test-security", (
        Figure("findings of reviews that tests hold", "security.json", "", "", "all", _held),
    )),
    Group("Signatures", "make bench-keyed", (
        Figure("the codes of one decision: claim, answer, log row", _KEYED, "decision.keyed_us", "µs"),
        Figure("the code of a claim", _KEYED, "claim.keyed_us", "µs"),
        Figure("the code of a remembered answer", _KEYED, "answer.keyed_us", "µs"),
        Figure("the same, when it is read", _KEYED, "answer_read.keyed_us", "µs"),
        Figure("the code of a row of the decision log", _KEYED, "log_row.keyed_us", "µs"),
        Figure("the code of a seed", _KEYED, "seed.keyed_us", "µs"),
    )),
    Group("The stream", "make bench-streaming", (
        Figure("events, six entities each, one process", _STREAM, "six_entities.events_per_s", "a second"),
        Figure("the same, of a plain Python loop", _STREAM, "six_entities.ratio_to_plain_loop", "", "at least 0.8"),
        Figure("two processes, of one", _STREAM, "two_processes_ratio", "", "at least 1.5"),
        Figure("rows written, of a raw pipeline", _STREAM, "sink.ratio_to_raw", "", "at least 0.6"),
        Figure("rows written, of Feast's push", _STREAM, "sink.ratio_to_push", "", "at least 8"),
        Figure("event to visible at 1,000/s, p99", _STREAM, "freshness.p99_ms", "ms", "under 50"),
        Figure("a state at 10 events a day", _STREAM, "state.bytes_10_per_day", "bytes", "under 700"),
        Figure("values that differ from the oracle", "bench/velocity_proof.json", "wrong", "", "0"),
    )),
    Group("The stream under kill -9", "make chaos-streaming", (
        Figure("kills", "chaos/streaming.json", "kills"),
        Figure("events lost", "chaos/streaming.json", "lost", "", "0"),
        Figure("events counted twice", "chaos/streaming.json", "double_counted", "", "0"),
    )),
    Group("Feature store: sets and cuts of 1.75 million transactions", "make bench-training-set, make bench-cuts", (
        Figure("a point-in-time set", "bench/training_set.json", "seconds", "s"),
        Figure("the same, of a hand-written Spark query", "bench/training_set.json", "ratio_to_handwritten", "", "at most 1"),
        Figure("rows equal to that query's", "bench/training_set.json", "equal_rows"),
        Figure("one 6-hour cut", "bench/cuts.json", "one_cut.seconds", "s"),
        Figure("its figures that differ from DuckDB's", "bench/cuts.json", "one_cut.different", "", "0"),
    )),
    Group("Model and monitoring", "make bench-quality, make bench-drift, make bench-gates", (
        Figure("handbook, four folds: average precision", "bench/quality.json", "handbook.average_precision", "", "at least 0.68"),
        Figure("handbook, four folds: AUC", "bench/quality.json", "handbook.auc", "", "0.88 to 0.89"),
        Figure("known drifts that the report finds", "bench/drift.json", "drifts", of=_found),
        Figure("false alarms in quiet weeks", "bench/drift.json", "false_alarm_weeks", "", "at most 1 in 26"),
        Figure("a gate over a million rows", "bench/gates.json", "pandas.seconds", "s", "under 60"),
    )),
)  # fmt: skip

_ROW: Final = re.compile(r"^\| (?P<meaning>.+?) \| (?P<value>.*?) \| (?P<target>.*?) \|$", re.MULTILINE)


def value_at(data: Any, path: str) -> Any:
    """What stands at `path` in `data` (all of it, for no path); raise `KeyError` when nothing does."""
    for part in path.split(".") if path else ():
        if not isinstance(data, Mapping) or part not in data:
            raise KeyError(path)
        data = data[part]
    return data


def text_of(figure: Figure, value: Any) -> str:
    """The value as the page has it, with its unit."""
    if figure.of is not None:
        text = figure.of(value)
    elif isinstance(value, float) and not value.is_integer():
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    else:
        text = f"{int(value):,}"
    return f"{text} {figure.unit}".rstrip()


def document(results: Path, before: str = "") -> str:
    """The page's text, from the files that exist; the other rows stay as in `before`."""
    kept = {match["meaning"]: match["value"] for match in _ROW.finditer(before)}
    parts = [
        "# Figures\n\nWritten by `make figures`; each table names the command that measures it. Machine: "
        f"{platform.machine()}, Python {platform.python_version()}, two shared cores for the service, the "
        "store and the load generator together. Read ratios, not absolute figures; a row keeps its value "
        "until its command runs again.\n"
    ]
    for group in GROUPS:
        commands = ", ".join(f"`{command}`" for command in group.command.split(", "))
        rows = ["| figure | measured | target |", "| --- | --- | --- |"]
        for figure in group.figures:
            path = results / figure.file
            text = kept.get(figure.meaning, UNKNOWN)
            if path.exists():
                text = text_of(figure, value_at(orjson.loads(path.read_bytes()), figure.path))
            rows.append(f"| {figure.meaning} | {text} | {figure.target} |")
        parts.append(f"## {group.title}\n\n{commands}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def main() -> None:
    path = REPOSITORY / "docs" / "figures.md"
    path.write_text(document(settings().results, path.read_text() if path.exists() else ""))


if __name__ == "__main__":
    main()
