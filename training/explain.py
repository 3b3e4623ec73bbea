"""Explain one feature and plot it: `python -m training.explain NAME [--version VERSION]`.

What it means, where it comes from and what null means, from the catalogue; how it is
distributed and how fraud and the score follow it, from the reference rows of a saved model.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes

from stores.declared import served_vector
from stores.settings import settings
from training.card_plots import ACCENT, QUIET, SECOND, draw
from training.catalogue import Entry, champion_version, entries
from training.metrics import Floats
from training.save import model_folder

BINS = 10


def describe(entry: Entry) -> str:
    """The catalogue's facts of one feature, one a line."""
    notes = "category code" if entry.categorical else "number"
    if entry.direction > 0:
        notes += "; a rise may never lower the score"
    facts = {
        "feature": entry.name, "meaning": entry.meaning, "entity": entry.entity, "view": entry.view,
        "source": entry.source, "fresh": entry.freshness, "ttl": entry.ttl, "null means": entry.null,
        "kind": notes,
    }  # fmt: skip
    return "\n".join(f"{name:<11} {value}" for name, value in facts.items())


def by_value(values: Floats, fraud: Floats, score: Floats, *, bins: int = BINS) -> list[dict[str, Any]]:
    """Fraud rate and mean score in quantile bins of a feature, and of its missing values."""
    known = np.isfinite(values)
    rows: list[dict[str, Any]] = []
    if known.any():
        edges = np.unique(np.quantile(values[known], np.linspace(0, 1, bins + 1)))
        place = np.clip(np.searchsorted(edges, values[known], side="right") - 1, 0, max(len(edges) - 2, 0))
        for number in np.unique(place):
            mask = place == number
            inside = values[known][mask]
            rows.append(_bin(f"{inside.min():g} to {inside.max():g}", fraud[known][mask], score[known][mask]))
    if not known.all():
        rows.append(_bin("missing", fraud[~known], score[~known]))
    return rows


def _bin(label: str, fraud: Floats, score: Floats) -> dict[str, Any]:
    return {
        "values": label,
        "rows": len(fraud),
        "fraud_rate": float(fraud.mean()),
        "score": float(score.mean()),
    }


def plot(name: str, rows: list[dict[str, Any]]) -> str:
    """SVG of fraud rate and mean score over the feature's bins, with the rows in each."""

    def axes_of(axes: Axes) -> None:
        x = np.arange(len(rows))
        beside = axes.twinx()
        beside.bar(x, [row["rows"] for row in rows], color=QUIET, alpha=0.22, width=0.8)
        beside.set_ylabel("rows")
        beside.grid(False)
        axes.plot(x, [row["fraud_rate"] for row in rows], "o-", color=ACCENT, label="fraud rate")
        axes.plot(x, [row["score"] for row in rows], "s--", color=SECOND, label="mean score")
        axes.set_xticks(x, [row["values"] for row in rows], rotation=30, ha="right")
        axes.set(title=name, ylim=(0, None))
        axes.set_zorder(beside.get_zorder() + 1)
        axes.patch.set_visible(False)
        axes.legend(loc="upper left")

    return draw(axes_of, width=8, height=4.4)


def main(argv: list[str] | None = None) -> int:
    """Print the feature's facts; with a saved model also its bins, and write the plot."""
    parser = argparse.ArgumentParser(prog="python -m training.explain", description="Explain one feature.")
    parser.add_argument("name")
    parser.add_argument("--version", help="model whose reference rows are used (default: champion or newest)")
    parser.add_argument("--out", type=Path, help="SVG file (default: <results>/features/<name>.svg)")
    options = parser.parse_args(argv)
    entry = next((entry for entry in entries() if entry.name == options.name), None)
    if entry is None:
        near = difflib.get_close_matches(options.name, served_vector(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see docs/features.md"
        print(f"explain: there is no feature {options.name}; {hint}", file=sys.stderr)
        return 1
    print(describe(entry))
    version = options.version or champion_version()
    if version is None:
        print("\nno model is saved yet, so there are no values to show; run `make train`")
        return 0
    folder = model_folder(version)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    print(f"{'importance':<11} {manifest['gain'].get(entry.name, 0.0):.2%} of the split gain in {version}")
    table = pq.read_table(folder / "reference.parquet", columns=[entry.name, "score", "is_fraud"])
    values, score, fraud = (
        table.column(name).cast("float64").to_numpy(zero_copy_only=False)
        for name in (entry.name, "score", "is_fraud")
    )
    rows = by_value(values, fraud, score)
    print(f"\n{'values':<28}{'rows':>9}{'fraud':>9}{'score':>9}")
    for row in rows:
        print(f"{row['values']:<28}{row['rows']:>9,}{row['fraud_rate']:>9.2%}{row['score']:>9.2%}")
    out = options.out or settings().results / "features" / f"{entry.name}.svg"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(plot(entry.name, rows), encoding="utf-8")
    print(f"\nplot: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
