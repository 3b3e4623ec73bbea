"""The drawings of a model's card, as SVG text that stands inside an HTML page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, ACCENT, SECOND, QUIET, GRID = "#1d2733", "#b3261e", "#1f6f8b", "#8a94a0", "#e6e8eb"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "tollgate",
}


def draw(plot: Callable[[Axes], None], *, width: float = 4.6, height: float = 3.2) -> str:
    """SVG of one set of axes drawn by `plot`, sized in inches; the same input, the same text."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        plot(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    svg = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)


def precision_recall(card: dict[str, Any]) -> str:
    curves, figures = card["curves"], card["metrics"]

    def plot(axes: Axes) -> None:
        axes.step(curves["recall"], curves["precision"], where="post", color=ACCENT, lw=1.6)
        axes.axhline(figures["base_rate"], color=QUIET, lw=0.9, ls=":")
        axes.plot(0.7, figures["precision_at_recall_70"], "o", color=INK, ms=5)
        # The curve falls to the right: below it there is room to the left, above it to the right.
        below = figures["precision_at_recall_70"] > 0.3
        axes.annotate(
            f"{figures['precision_at_recall_70']:.2f} at recall .70",
            (0.7, figures["precision_at_recall_70"]), xytext=(-8, -14) if below else (2, 10),
            textcoords="offset points", ha="right" if below else "center",
        )  # fmt: skip
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.04))

    return draw(plot)


def roc(card: dict[str, Any]) -> str:
    curves = card["curves"]

    def plot(axes: Axes) -> None:
        axes.plot([0, *curves["false_positive_rate"]], [0, *curves["recall"]], color=SECOND, lw=1.6)
        axes.plot([0, 1], [0, 1], color=QUIET, lw=0.9, ls=":")
        axes.axvline(0.02, color=QUIET, lw=0.9)
        axes.annotate(
            f"{card['metrics']['recall_at_fpr_2']:.2f} at 2% false positives",
            (0.02, card["metrics"]["recall_at_fpr_2"]), xytext=(8, -12), textcoords="offset points",
        )  # fmt: skip
        axes.set(xlabel="false positive rate", ylabel="recall", xlim=(-0.01, 1), ylim=(0, 1.02))

    return draw(plot)


def gain(card: dict[str, Any]) -> str:
    curves = card["curves"]

    def plot(axes: Axes) -> None:
        share = np.maximum(np.array(curves["gain_rows"][1:]) * 100, 1e-3)
        axes.plot(share, curves["gain_frauds"][1:], color=SECOND, lw=1.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}%")
        axes.set(xlabel="transactions looked at, riskiest first", ylabel="frauds found", ylim=(0, 1.02))

    return draw(plot)


def reliability(card: dict[str, Any]) -> str:
    bins = [entry for entry in card["reliability"] if entry["predicted"] > 0]

    def plot(axes: Axes) -> None:
        floor = max(min(entry["predicted"] for entry in bins) / 2, 1e-6)
        axes.plot([floor, 1], [floor, 1], color=QUIET, lw=0.9, ls=":")
        axes.plot(
            [entry["predicted"] for entry in bins], [max(entry["observed"], floor) for entry in bins],
            "o-", color=ACCENT, ms=4.5, lw=1,
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set(xlabel="predicted probability", ylabel="observed share of fraud")

    return draw(plot)


def cost(card: dict[str, Any]) -> str:
    points = [point for point in card["cost"]["curve"] if point["review"] > 0]

    def plot(axes: Axes) -> None:
        x = np.array([point["review"] for point in points])
        axes.plot(x, np.array([point["cost_per_day"] for point in points]) / 100, color=ACCENT, lw=1.6)
        axes.axhline(card["cost"]["approve_all_per_day"] / 100, color=QUIET, lw=0.9, ls=":")
        axes.axvline(card["thresholds"]["review"], color=INK, lw=0.9)
        axes.axvline(card["thresholds"]["block"], color=INK, lw=0.9, ls="--")
        axes.set_xscale("log")
        axes.set(
            xlabel="REVIEW threshold (line: chosen; dashed: BLOCK)", ylabel="cost a day, reference units"
        )
        # Flagging nearly everybody costs many times more than doing nothing: not what is decided here.
        axes.set_ylim(0, 2 * card["cost"]["approve_all_per_day"] / 100 or None)

    return draw(plot)


def weeks(card: dict[str, Any]) -> str:
    entries = [entry for entry in card["weekly"] if entry["average_precision"] is not None]

    def plot(axes: Axes) -> None:
        x = np.arange(len(entries))
        for name, colour, label in (
            ("auc", SECOND, "AUC"),
            ("average_precision", ACCENT, "average precision"),
        ):
            axes.plot(x, [entry[name] for entry in entries], "o-", color=colour, ms=4, lw=1.2, label=label)
        seen = sum(bool(entry["seen"]) for entry in entries)
        if 0 < seen < len(entries):
            axes.axvspan(-0.5, seen - 0.5, color=GRID, alpha=0.6, lw=0)
            axes.text(seen - 0.6, 0.04, "trained on", ha="right", color=QUIET)
        step = max(len(entries) // 6, 1)
        axes.set_xticks(x[::step], [entries[place]["value"][5:] for place in x[::step]])
        axes.set(ylim=(0, 1.02), xlabel="week from")
        axes.legend(loc="lower left")

    return draw(plot)


def shap_points(card: dict[str, Any]) -> str:
    points = card["shap"]["points"]
    names = list(points)[::-1]

    def plot(axes: Axes) -> None:
        random = np.random.default_rng(7)
        for row, name in enumerate(names):
            ranks = np.array([np.nan if rank is None else rank for rank in points[name]["rank"]])
            shap = np.array(points[name]["shap"])
            height = row + random.uniform(-0.28, 0.28, len(shap))
            unknown = np.isnan(ranks)
            axes.scatter(shap[unknown], height[unknown], s=5, color=QUIET, alpha=0.5, lw=0, rasterized=True)
            axes.scatter(
                shap[~unknown], height[~unknown], s=5, c=ranks[~unknown], cmap="coolwarm", vmin=0, vmax=1,
                alpha=0.85, lw=0, rasterized=True,
            )  # fmt: skip
        axes.axvline(0, color=QUIET, lw=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("effect on the log-odds of fraud (blue: low value, red: high, grey: missing)")

    return draw(plot, width=9.6, height=0.3 * len(names) + 1)
