"""What the service counts: plain numbers on the hot path, Prometheus text when somebody asks.

A worker adds to Python integers and lists (a fraction of a microsecond; the client library costs
several) and leaves a snapshot in the run folder every second. `/metrics` adds up the snapshots
of all workers of this service, so that any worker can answer for all of them. Counters of a
worker that died stay in the sum; its gauges do not.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

#: Upper bounds of latency buckets, seconds.
SECONDS: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.015, 0.03, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SCORES: Final = tuple(step / 20 for step in range(1, 21))

#: name: (help, label names). Names get the prefix tollgate_.
COUNTERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "requests_total": ("HTTP requests to the scoring routes, by status", ("route", "status")),
    "http_refused_total": ("Requests and connections refused at the door, by kind", ("kind",)),
    "decisions_total": ("Decisions by outcome and variant", ("decision", "variant")),
    "feature_status_total": ("Feature views read, by what was found", ("view", "status")),
    "degraded_total": ("Answers that were not the best possible, by cause", ("cause",)),
    "rule_hits_total": ("Rules that held, by name and action", ("rule", "action")),
    "rule_errors_total": ("Rules that could not be evaluated", ()),
    "repeated_total": ("Requests answered from memory, or refused for another body", ("outcome",)),
    "unverified_total": ("Values in Redis or files that no key in force signed, by what they are", ("what",)),
    "labels_total": ("Labels accepted, by source", ("source",)),
    "profiles_read_again_total": (
        "Profiles read value by value: written by another program than Tollgate's store",
        (),
    ),
    "events_spooled_total": ("Events that had to wait for the event log", ()),
}
GAUGES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "in_flight": ("Transactions queued or being scored", ()),
    "breaker_state": ("0 closed, 1 half-open, 2 open", ("breaker",)),
    "log_held": ("Decisions in memory because the disk refuses them", ()),
    "log_heads_late_seconds": ("Seconds since heads of the decision log can no longer be put out", ()),
    "events_waiting": ("Events that wait for the event log", ()),
    "model_age_seconds": ("Seconds since the champion was brought into service", ("version",)),
    "model_refused": ("1 while a line-up is refused", ()),
    "registry_refused": ("1 while Feast's registry lacks what is served", ()),
    "tokens_refused": (
        "1 while the tokens file is missing or broken: the tokens read before stay in force",
        (),
    ),
    "keys_refused": ("1 while the keyring is refused: the keys before stay in force", ()),
    "rules_refused": ("1 while a rule file is refused", ()),
    "rules_demoted": ("Block rules that the decline breaker has demoted", ()),
}
HISTOGRAMS: Final[dict[str, tuple[str, tuple[str, ...], Sequence[float]]]] = {
    "stage_seconds": ("Latency of scoring by stage (wall time)", ("stage",), SECONDS),
    "batch_size": ("Transactions in a micro-batch", (), SIZES),
    "score": ("Distribution of fraud scores", ("variant",), SCORES),
}

Labels = tuple[str, ...]


class Histogram:
    """Counts by upper bound, and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self._bounds, value)] += times
        self.total += value * times


class Metrics:
    """The numbers of one worker. Only its event loop writes them; `snapshot` may be taken in any thread."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[Labels, int]] = {name: defaultdict(int) for name in COUNTERS}
        self.gauges: dict[str, dict[Labels, float]] = {name: {} for name in GAUGES}
        self.histograms: dict[str, dict[Labels, Histogram]] = {name: {} for name in HISTOGRAMS}

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        self.counters[name][labels] += by

    def gauge(self, name: str, value: float, *labels: str) -> None:
        self.gauges[name][labels] = value

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The histogram itself, for callers that observe often to keep."""
        known = self.histograms[name]
        if labels not in known:
            known[labels] = Histogram(HISTOGRAMS[name][2])
        return known[labels]

    def snapshot(self) -> dict[str, Any]:
        """Everything as JSON values. `list` copies a family at once, whoever writes meanwhile."""
        return {
            "counters": {
                name: [[list(k), v] for k, v in list(values.items())]
                for name, values in self.counters.items()
            },
            "gauges": {
                name: [[list(k), v] for k, v in list(values.items())] for name, values in self.gauges.items()
            },
            "histograms": {
                name: [[list(k), list(h.counts), h.total] for k, h in list(values.items())]
                for name, values in self.histograms.items()
            },
        }


class MetricsFolder:
    """Snapshots of all workers of one service (those that have one parent process)."""

    def __init__(self, run: Path) -> None:
        self._folder = run / "metrics"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._group = os.getppid()
        self._path = self._folder / f"metrics-{self._group}-{os.getpid()}.json"
        for path in self._folder.glob("metrics-*.json"):
            group = path.name.split("-")[1]
            if group != str(self._group) and not _alive(int(group)):
                path.unlink(missing_ok=True)

    def write(self, metrics: Metrics) -> None:
        """Leave this worker's snapshot; a disk that refuses costs only other workers' view of it."""
        unfinished = self._path.with_suffix(".tmp")
        try:
            unfinished.write_text(json.dumps(metrics.snapshot()))
            unfinished.replace(self._path)
        except OSError:
            return

    def others(self) -> Iterator[tuple[bool, dict[str, Any]]]:
        """Of every other worker: whether it lives, and its last snapshot."""
        for path in self._folder.glob(f"metrics-{self._group}-*.json"):
            if path == self._path:
                continue
            try:
                yield _alive(int(path.stem.split("-")[2])), json.loads(path.read_text())
            except (OSError, ValueError):
                continue


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def exposition(metrics: Metrics, others: Iterator[tuple[bool, dict[str, Any]]]) -> str:
    """Prometheus text (format 0.0.4) of this worker and the `others` together."""
    snapshots = [(True, metrics.snapshot()), *others]
    lines: list[str] = []
    for name, (help_text, labels) in COUNTERS.items():
        sums: dict[Labels, float] = defaultdict(float)
        for _, snapshot in snapshots:
            for key, value in snapshot["counters"].get(name, []):
                sums[tuple(key)] += value
        lines += _family(
            name, "counter", help_text, [_sample(name, labels, key, value) for key, value in sums.items()]
        )
    for name, (help_text, labels) in GAUGES.items():
        gathered: dict[Labels, float] = {}
        for alive, snapshot in snapshots:
            for key, value in snapshot["gauges"].get(name, []) if alive else []:
                summed = name in ("in_flight", "log_held", "events_waiting")
                known = gathered.get(tuple(key), 0.0)
                gathered[tuple(key)] = known + value if summed else max(known, value)
        lines += _family(
            name, "gauge", help_text, [_sample(name, labels, key, value) for key, value in gathered.items()]
        )
    for name, (help_text, labels, bounds) in HISTOGRAMS.items():
        merged: dict[Labels, tuple[list[int], float]] = {}
        for _, snapshot in snapshots:
            for key, counts, total in snapshot["histograms"].get(name, []):
                before, sum_before = merged.get(tuple(key), ([0] * len(counts), 0.0))
                merged[tuple(key)] = (
                    [a + b for a, b in zip(before, counts, strict=True)],
                    sum_before + total,
                )
        samples = []
        for key, (counts, total) in merged.items():
            running = 0
            for bound, number in zip([*bounds, float("inf")], counts, strict=True):
                running += number
                edge = "+Inf" if bound == float("inf") else f"{bound:g}"
                samples.append(_sample(f"{name}_bucket", (*labels, "le"), (*key, edge), running))
            samples.append(_sample(f"{name}_sum", labels, key, total))
            samples.append(_sample(f"{name}_count", labels, key, running))
        lines += _family(name, "histogram", help_text, samples)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, help_text: str, samples: list[str]) -> list[str]:
    return [f"# HELP tollgate_{name} {help_text}", f"# TYPE tollgate_{name} {kind}", *samples]


def _sample(name: str, labels: Sequence[str], values: Sequence[str], number: float) -> str:
    quoted = ",".join(f'{label}="{_escape(value)}"' for label, value in zip(labels, values, strict=True))
    return f"tollgate_{name}{{{quoted}}} {number:.10g}" if quoted else f"tollgate_{name} {number:.10g}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
