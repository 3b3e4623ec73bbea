"""The demo's closing figures: `results/summary.json` and the table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from embedded.replay import ReplayResult
from monitoring.drift.verdict import HEADLINES
from training.metrics import (
    auc,
    average_precision,
    brier,
    brier_base_rate,
    precision_at_recall,
    rank,
    recall_at_fpr,
)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The `share` quantile of measured values, or None if none were."""
    return round(float(np.quantile(values, share)), 3) if values else None


def replay_figures(result: ReplayResult, frauds: set[str]) -> dict[str, Any]:
    """What the replay measured, against the labels that came to be known later."""
    scored = list(result.scores)
    labels = np.array([transaction in frauds for transaction in scored], dtype=np.int64)
    scores = np.array([result.scores[transaction] for transaction in scored])
    figures: dict[str, Any] = {
        "events_processed": result.sent,
        "fraud_in_replay": int(sum(transaction in frauds for transaction in result.outcome)),
        "fraud_detected": int(
            sum(
                decision != "APPROVE"
                for transaction, decision in result.outcome.items()
                if transaction in frauds
            )
        ),
        "decisions": dict(sorted(result.decisions.items())),
        "latency_p50_ms": quantile(result.latencies_ms, 0.50),
        "latency_p95_ms": quantile(result.latencies_ms, 0.95),
        "latency_p99_ms": quantile(result.latencies_ms, 0.99),
        "throughput_events_per_sec": round(result.sent / result.scoring_seconds, 1)
        if result.scoring_seconds
        else None,
        "error_rate": result.errors / result.sent if result.sent else None,
        "degraded": result.degraded,
        "freshness_p50_ms": quantile(result.freshness_ms, 0.50),
        "freshness_p99_ms": quantile(result.freshness_ms, 0.99),
    }
    if len(scored) and 0 < labels.sum() < len(labels):
        ranking = rank(labels, scores)
        figures |= {
            "model_roc_auc": round(auc(ranking), 4),
            "average_precision": round(average_precision(ranking), 4),
            "precision_at_recall_70": round(precision_at_recall(ranking, 0.70), 4),
            "recall_at_fpr_2": round(recall_at_fpr(ranking, 0.02), 4),
            "brier": round(brier(labels, scores), 6),
            "brier_base_rate": round(brier_base_rate(labels), 6),
            "avg_prediction": round(float(scores.mean()), 6),
        }
    return figures


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary as JSON, readable by people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def parity_words(parity: Mapping[str, Any]) -> str:
    """How many served rows differ from the rebuild, and why: a timeout is no feature's defect."""
    text = f"{parity['mismatched_rows']} of {parity['rows']:,} rows differ, {parity['features']} features"
    causes = {name: count for name, count in parity["causes"].items() if count}
    if not causes:
        return text
    known = ", ".join(f"{name} {count:,}" for name, count in sorted(causes.items()))
    return f"{text} ({known})"


def drift_words(drift: Mapping[str, Any]) -> str:
    """The report's verdict first; the number of inputs that moved is what stands behind it."""
    moved = len(drift["drifted_features"])
    return f"{HEADLINES[drift['action']]} ({moved} of its inputs moved by themselves)"


def leak_words(leak: Mapping[str, Any]) -> str:
    """What a model that went on all the same was suspected for."""
    return (
        f"training looked like a leak: AUC {leak['auc']:.4f} above {leak['ceiling']:g}, strongest alone "
        + ", ".join(leak["strongest"])
    )


def table(summary: Mapping[str, Any]) -> str:
    """The closing table."""
    parity, drift = summary["parity"], summary["drift"]
    rows = [
        ("dataset", summary["dataset"]),
        ("transactions replayed", f"{summary['events_processed']:,}"),
        ("rows rejected by the contract", f"{summary['rejected']:,}"),
        ("decisions", ", ".join(f"{name} {count:,}" for name, count in summary["decisions"].items())),
        ("frauds met by a review or block", f"{summary['fraud_detected']} of {summary['fraud_in_replay']}"),
        (
            "answer p50 / p95 / p99",
            f"{summary['latency_p50_ms']} / {summary['latency_p95_ms']} / {summary['latency_p99_ms']} ms",
        ),
        ("replayed per second", f"{summary['throughput_events_per_sec']}"),
        ("errors", f"{summary['error_rate']:.4%}"),
        ("event to visible state p99", f"{summary['freshness_p99_ms']} ms"),
        ("ROC AUC on the replayed days", f"{summary.get('model_roc_auc')}"),
        ("average precision", f"{summary.get('average_precision')}"),
        ("precision at recall .70", f"{summary.get('precision_at_recall_70')}"),
        ("recall at 2 % false positives", f"{summary.get('recall_at_fpr_2')}"),
        ("Brier (base rate's)", f"{summary.get('brier')} ({summary.get('brier_base_rate')})"),
        ("served against rebuilt vectors", parity_words(parity)),
        ("drift report says", drift_words(drift)),
        ("peak memory", f"{summary['peak_memory_mib']:,.0f} MiB"),
        ("whole run", f"{summary['seconds']:.0f} s"),
    ]
    if summary.get("leak"):
        rows.insert(1, ("MARKED", leak_words(summary["leak"])))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
