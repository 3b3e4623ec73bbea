"""The metrics of all workers of one service, as Prometheus text from any of them.

A worker leaves a snapshot of its numbers in the run folder every second, in a folder of the process that
started it: all workers of one `bentoml serve` have one parent. Whoever is asked adds up what the others
left and what it counts itself. Counters of a worker that died stay in the sum, since a counter must not
fall; its gauges do not. The exposition is prometheus_client's.

    <run>/metrics/<parent>/<worker>.json   one for each worker that lives
                           gone.json       what those that died had counted
                           lock            held while the dead are added up
                           library/        prometheus_client's own files, with what BentoML counts
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bentos.base.metrics import COUNTERS, GAUGES, HISTOGRAMS, Labels, Metrics
from machine.process_identity import alive, process_identity

#: Gauges that count something in each worker; of the others the largest value is the service's.
_SUMMED: Final = frozenset(("in_flight", "log_held", "events_waiting"))
_GONE: Final = "gone.json"
#: Long enough for another thread to wake up and take the interpreter.
_PAUSE_S: Final = 0.0002

Snapshot = dict[str, Any]


def service_folder(run: Path) -> Path:
    """Where the workers of this service leave their numbers."""
    folder = run / "metrics" / _identity(os.getppid())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def library_folder(run: Path) -> Path:
    """Where prometheus_client keeps what BentoML counts: this service's PROMETHEUS_MULTIPROC_DIR."""
    folder = service_folder(run) / "library"
    folder.mkdir(exist_ok=True)
    return folder


class WorkerMetrics:
    """This worker's numbers among those of its siblings."""

    def __init__(self, metrics: Metrics, run: Path) -> None:
        self._metrics = metrics
        self._folder = service_folder(run)
        self._path = self._folder / f"{_identity(os.getpid())}.json"
        for folder in self._folder.parent.iterdir():  # services that have ended
            if folder != self._folder and not alive(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
        with self._held(fcntl.LOCK_EX):
            self._bury()

    def write(self) -> None:
        """Leave a snapshot; a disk that refuses costs only the others' view of this worker."""
        unfinished = self._path.with_suffix(".unfinished")
        try:
            unfinished.write_text(json.dumps(self._metrics.snapshot()))
            unfinished.replace(self._path)
        except OSError:
            return

    def text(self) -> bytes:
        """Prometheus text (format 0.0.4) of all workers; in any thread."""
        with self._held(fcntl.LOCK_SH):
            others = [(alive(path.stem), _read(path)) for path in self._others()]
            gone = _read(self._folder / _GONE)
        living = [self._metrics.snapshot(), *(snapshot for lives, snapshot in others if lives)]
        dead = [gone, *(snapshot for lives, snapshot in others if not lives)]
        return generate_latest(_Families(living, dead))

    def _others(self) -> list[Path]:
        every = self._folder.glob("*.json")
        return [path for path in every if path != self._path and path.name != _GONE]

    def _bury(self) -> None:
        """Add up what the dead have left, so that there are never more files than workers."""
        dead = [path for path in self._others() if not alive(path.stem)]
        if not dead:
            return
        snapshots = [_read(self._folder / _GONE), *map(_read, dead)]
        unfinished = self._folder / "gone.unfinished"
        unfinished.write_text(json.dumps(_added(snapshots)))
        unfinished.replace(self._folder / _GONE)
        for path in dead:
            path.unlink(missing_ok=True)

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, how)
            yield


class _Families(Collector):
    """Snapshots as what prometheus_client writes: counters of all, gauges of those that live."""

    def __init__(self, living: Sequence[Snapshot], dead: Sequence[Snapshot]) -> None:
        self._counts = _added((*living, *dead))
        self._living = living

    def collect(self) -> Iterator[Metric]:
        """Every family, with a pause before each: threads take turns at the interpreter only every few
        milliseconds, so that a page encoded at a stretch would hold up decisions for as long."""
        for family in self._all():
            time.sleep(_PAUSE_S)
            yield family

    def _all(self) -> Iterator[Metric]:
        for name, (meaning, labels) in COUNTERS.items():
            counter = CounterMetricFamily(f"tollgate_{name}", meaning, labels=labels)
            for key, value in self._counts["counters"].get(name, ()):
                counter.add_metric(key, value)
            yield counter
        for name, (meaning, labels) in GAUGES.items():
            gauge = GaugeMetricFamily(f"tollgate_{name}", meaning, labels=labels)
            for key, value in _gathered(name, self._living).items():
                gauge.add_metric(key, value)
            yield gauge
        for name, (meaning, labels, bounds) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"tollgate_{name}", meaning, labels=labels)
            edges = [floatToGoString(bound) for bound in (*bounds, inf)]  # type: ignore[no-untyped-call]
            for key, counts, total in self._counts["histograms"].get(name, ()):
                running, buckets = 0, []
                for edge, count in zip(edges, counts, strict=True):
                    running += count
                    buckets.append((edge, running))
                histogram.add_metric(key, buckets, sum_value=total)
            yield histogram


def _gathered(name: str, living: Sequence[Snapshot]) -> dict[Labels, float]:
    found: dict[Labels, float] = {}
    for snapshot in living:
        for key, value in snapshot["gauges"].get(name, ()):
            labels = tuple(key)
            if labels in found:
                value = found[labels] + value if name in _SUMMED else max(found[labels], value)
            found[labels] = value
    return found


def _added(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Counters and histograms of all; gauges of nobody."""
    counters: dict[str, dict[Labels, int]] = {}
    histograms: dict[str, dict[Labels, tuple[list[int], float]]] = {}
    for snapshot in snapshots:
        for name, pairs in snapshot["counters"].items():
            sums = counters.setdefault(name, {})
            for key, value in pairs:
                sums[tuple(key)] = sums.get(tuple(key), 0) + value
        for name, triples in snapshot["histograms"].items():
            merged = histograms.setdefault(name, {})
            for key, counts, total in triples:
                before, sum_before = merged.get(tuple(key), ([0] * len(counts), 0.0))
                added = [a + b for a, b in zip(before, counts, strict=True)]
                merged[tuple(key)] = added, sum_before + total
    return {
        "counters": {name: [[key, value] for key, value in sums.items()] for name, sums in counters.items()},
        "gauges": {},
        "histograms": {
            name: [[key, counts, total] for key, (counts, total) in merged.items()]
            for name, merged in histograms.items()
        },
    }


class _Left(Struct):
    """What a snapshot holds; whatever else a file holds is none."""

    counters: dict[str, list[tuple[tuple[str, ...], int | float]]]
    gauges: dict[str, list[tuple[tuple[str, ...], float | bool]]]
    histograms: dict[str, list[tuple[tuple[str, ...], list[int], float]]]


_decode: Final = msgspec.json.Decoder(_Left).decode
#: No worker has more to say.
_LARGEST: Final = 4 << 20


def _read(path: Path) -> Snapshot:
    """A snapshot; nothing where there is none, or none of this version."""
    try:
        with path.open("rb") as file:
            found = _decode(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return {"counters": {}, "gauges": {}, "histograms": {}}
    fitting = {
        name: [triple for triple in triples if len(triple[1]) == len(HISTOGRAMS[name][2]) + 1]
        for name, triples in found.histograms.items()
        if name in HISTOGRAMS
    }
    return {"counters": found.counters, "gauges": found.gauges, "histograms": fitting}


def _identity(number: int) -> str:
    return process_identity(number) or str(number)  # a parent outside this container has no number but 0
