"""Gauges of runs that end before anybody scrapes them: small files that the schedule serves.

Each file `<home>/metrics/<name>.prom` holds Prometheus text; Prometheus's node exporter can read the
same folder as its textfile directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from stores.files import write_whole
from stores.settings import settings

Labels = Mapping[str, str]


def folder() -> Path:
    """Where the files lie."""
    return settings().home / "metrics"


def text(name: str, meaning: str, values: Sequence[tuple[Labels, float]]) -> str:
    """One gauge as Prometheus text."""
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
    for labels, value in values:
        inside = ",".join(f'{key}="{label}"' for key, label in labels.items())
        lines.append(f"{name}{{{inside}}} {value:.10g}" if inside else f"{name} {value:.10g}")
    return "\n".join(lines) + "\n"


def publish(name: str, content: str) -> Path:
    """Replace the file `name`, whole or not at all."""
    path = folder() / f"{name}.prom"
    write_whole(path, content)
    return path


class FolderCollector(Collector):
    """Everything in the folder, read afresh at every scrape; an unreadable file is left out and counted."""

    def collect(self) -> Iterator[Metric]:
        unreadable = 0
        for path in sorted(folder().glob("*.prom")):
            try:
                yield from list(text_string_to_metric_families(path.read_text()))
            except ValueError:
                unreadable += 1
        yield GaugeMetricFamily(
            "tollgate_metric_files_unreadable", "Metric files that do not parse", unreadable
        )
