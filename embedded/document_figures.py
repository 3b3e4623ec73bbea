"""Writes `docs/measurements.md` from what the commands left in `results/`: `make figures`.

A section whose file is not there keeps the figures of the run that wrote it.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from stores.settings import REPOSITORY, settings

#: File under results/ -> the command that writes it, and what it measures.
SOURCES: Final = {
    "summary.json": ("make demo", "the whole loop"),
    "bench/serving.json": (
        "make bench-serving",
        "the service beside a raw app and what most teams would write",
    ),
    "bench/streaming.json": ("make bench-streaming", "the flow beside a plain loop and a raw pipeline"),
    "bench/velocity_proof.json": ("make bench-streaming", "velocity features beside the oracle's"),
    "bench/serving_built.json": ("python -m benchmarks.serving_built", "the built Bento beside the sources"),
    "bench/training_set.json": ("make bench-training-set", "point-in-time sets"),
    "bench/cuts.json": ("make bench-cuts", "6-hour cuts beside DuckDB"),
    "bench/quality.json": ("make bench-quality", "model quality"),
    "bench/gates.json": ("make bench-gates", "a gate over a million rows"),
    "bench/drift.json": ("make bench-drift", "drift reports on known drift"),
    "chaos/serving.json": ("make chaos-serving", "the service while things break"),
    "chaos/streaming.json": ("make chaos-streaming", "the flow under kill -9"),
}
_LONGEST: Final = 40


def rows(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """`value` as (dotted name, text) rows; long lists are counted, not printed."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from rows(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping) and len(value) <= _LONGEST:
        for place, inner in enumerate(value):
            label = inner.get("name") or inner.get("kind") or place
            yield from rows({k: v for k, v in inner.items() if k not in ("name", "kind")}, f"{name}[{label}]")
    elif isinstance(value, list):
        yield name, f"{len(value)} entries" if len(value) > 5 else ", ".join(map(str, value))
    elif isinstance(value, float):
        yield name, f"{value:.6g}"
    else:
        yield name, str(value)


def document(results: Path, before: str = "") -> str:
    """The document's text, from the files that exist; the sections of others stay as in `before`."""
    kept = {part.partition("\n")[0]: part.rstrip("\n") + "\n" for part in before.split("\n## ")[1:]}
    parts = [
        "# Measurements\n\nWritten by `make figures` from `results/`; every figure comes from the command "
        f"above its table. Machine: {platform.machine()}, Python {platform.python_version()}, 2 shared cores "
        "unless a file says otherwise: read ratios rather than absolute figures. Parts that a command did "
        "not run again keep the figures of the run before.\n"
    ]
    for name, (command, meaning) in SOURCES.items():
        path = results / name
        heading = f"`{command}`: {meaning}"
        if path.exists():
            table = "\n".join(f"| {key} | {text} |" for key, text in rows(orjson.loads(path.read_bytes())))
            parts.append(f"## {heading}\n\n| figure | value |\n| --- | --- |\n{table}\n")
        elif heading in kept:
            parts.append(f"## {kept[heading]}")
    return "\n".join(parts)


def main() -> None:
    path = REPOSITORY / "docs" / "measurements.md"
    path.write_text(document(settings().results, path.read_text() if path.exists() else ""))


if __name__ == "__main__":
    main()
