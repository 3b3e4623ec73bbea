"""What the service counts: plain numbers on the hot path.

A worker adds to Python integers and lists, a fraction of a microsecond where the client library costs
several. `bentos.base.worker_metrics` makes Prometheus text of them, with the library.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

#: Upper bounds of latency buckets, seconds.
SECONDS: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.015, 0.03, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LATENESS: Final = (-300.0, -60.0, -5.0, 0.0, 1.0, 5.0, 60.0, 300.0, 900.0, 3600.0)
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
    "outcomes_total": ("Outcomes accepted, by kind", ("kind",)),
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
    "outcomes_waiting": ("Outcomes whose payment is not known yet", ()),
    "outcomes_aside": ("Outcomes that fit no payment, or whose payment never became known", ()),
    "labels_waiting": ("Labels whose transaction is not known yet", ()),
    "labels_aside": ("Labels that could not be read, or whose transaction never became known", ()),
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
    "event_lateness_seconds": (
        "Seconds from the stated event time to its receipt, by client; below 0 its clock runs ahead",
        ("client",),
        LATENESS,
    ),
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
        """Everything as JSON values. `dict` copies a family at once, whoever writes meanwhile: a list of them
        makes a tuple for each, and a collection of garbage that begins there lets other threads in."""
        return {
            "counters": {
                name: [[list(k), v] for k, v in dict(values).items()]
                for name, values in self.counters.items()
            },
            "gauges": {
                name: [[list(k), v] for k, v in dict(values).items()] for name, values in self.gauges.items()
            },
            "histograms": {
                name: [[list(k), list(h.counts), h.total] for k, h in dict(values).items()]
                for name, values in self.histograms.items()
            },
        }
