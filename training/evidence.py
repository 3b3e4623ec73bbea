"""The evidence of a saved model: `results/models/<version>/card.html` and `card.json`.

    python -m training.evidence --dataset DIR [--version VERSION]

Everything is measured on the test period, which the model never saw: figures with their
intervals, curves, slices, stability by week, importances, SHAP, the champion on the same rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from stores.settings import settings
from training import metrics
from training.bootstrap import difference_interval, intervals
from training.card import card_html
from training.disturbed import by_pattern
from training.latency import measure
from training.metrics import Floats
from training.model import Model
from training.rows import Rows, TrainingSetError, read_rows
from training.save import commit, model_folder, newest_version
from training.slices import slices, weekly
from training.split import Span
from training.thresholds import CostModel, choose_thresholds

FIGURES = {
    "auc": metrics.auc,
    "average_precision": metrics.average_precision,
    "precision_at_recall_70": metrics.precision_at_recall,
    "recall_at_fpr_2": metrics.recall_at_fpr,
}
SHAP_ROWS = 1_500
SHAP_FEATURES = 15
CURVE_POINTS = 300


def saved_model(version: str) -> tuple[Model, dict[str, Any]]:
    """A model of the store and its manifest; `TrainingSetError` if it is not there."""
    folder = model_folder(version)
    if not (folder / "manifest.json").is_file():
        raise TrainingSetError(f"{version} is not in the model store; see `python -m training.save`")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    text = (folder / "model.txt").read_text(encoding="utf-8")
    return Model(text, tuple(manifest["features"]), manifest["calibration"]), manifest


def gather(version: str, rows: Rows, *, champion: str | None = None, rounds: int = 200) -> dict[str, Any]:
    """Everything on the card, as JSON values, measured on the model's own test period."""
    model, manifest = saved_model(version)
    span = Span(*(_microseconds(manifest["split"]["test"][end]) for end in ("start", "end")))
    late = rows.take(rows.mature & span.mask(rows.event_us))
    score = model.score(late.features)
    ranking = metrics.rank(late.label, score, late.weight)
    limits = manifest["thresholds"]
    alerts = int(manifest.get("alerts_per_day", 100))
    mean_cp, daily_cp = metrics.card_precision(late.day, late.customer, late.label, score, alerts)
    figures = metrics.summary(late.label, score, late.amount, late.weight)
    figures[f"cp_{alerts}"] = mean_cp
    figures["value_recall_at_review"] = metrics.value_recall(late.label, score, late.amount, limits["review"])
    figures["prevented_loss_at_review"] = metrics.prevented_loss(
        late.label, score, late.amount, limits["review"]
    )
    flagged_rows, found = metrics.gain(ranking)
    at = np.unique(np.linspace(0, len(ranking.threshold) - 1, CURVE_POINTS).astype(np.int64))
    # The head of the ranking decides: keep its points, not only even steps through the tail.
    at = np.unique(
        np.concatenate((at, np.geomspace(1, len(ranking.threshold), CURVE_POINTS).astype(np.int64) - 1))
    )
    cost = CostModel(**manifest["cost_model"])
    cost_curve = choose_thresholds(late.label, score, late.amount, late.day, cost, late.weight)
    return {
        "version": version,
        "trained_at_cut": manifest["trained_at_cut"],
        "split": manifest["split"],
        "metrics": figures,
        "intervals": intervals(
            late.label, score, FIGURES, groups=late.customer, weight=late.weight, rounds=rounds
        ),
        "card_precision_by_day": daily_cp,
        "alerts_per_day": alerts,
        "thresholds": limits,
        "cost_model": manifest["cost_model"],
        "cost": {
            "curve": cost_curve.curve,
            "approve_all_per_day": cost_curve.approve_all_per_day,
            "at_thresholds_per_day": cost_at(late, score, limits, cost),
        },
        "confusion": confusion(late, score, limits),
        "curves": {
            "recall": ranking.recall[at].tolist(),
            "precision": ranking.precision[at].tolist(),
            "false_positive_rate": ranking.false_positive_rate[at].tolist(),
            "gain_rows": flagged_rows.tolist(),
            "gain_frauds": found.tolist(),
        },
        "reliability": metrics.reliability(late.label, score, late.weight),
        "patterns": by_pattern(model, manifest, late, cost),
        "missing": manifest.get("missing"),
        "leak": manifest.get("leak"),
        "dropped": manifest.get("dropped", []),
        "slices": slices(late, score, limits["review"]),
        "weekly": by_week(rows, model, manifest),
        "importance": importance(model),
        "shap": shap_summary(model, late),
        "champion": compare(champion, late, score, rounds=rounds)
        if champion and champion != version
        else None,
        "cost_of_scoring": measure(model, late.features),
        "settings": manifest["settings"],
        "trees": manifest["trees"],
        "final": manifest["final"],
        "data": manifest["data"],
        "code": {**manifest["code"], "evidence_commit": commit()},
    }


def with_fraud_types(rows: Rows, truth: Path) -> Rows:
    """`rows` with `fraud_type` among the described columns, from a dataset's ground truth.

    Types are for slices only; transactions that it does not list are "genuine".
    """
    table = pq.read_table(truth, columns=["transaction_id", "type"]).to_pydict()
    kind = dict(zip(table["transaction_id"], table["type"], strict=True))
    names = rows.described["transaction_id"]
    types = np.array([kind.get(name, "genuine") for name in names.tolist()], dtype=object)
    return replace(rows, described={**rows.described, "fraud_type": types})


def by_week(rows: Rows, model: Model, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Weekly figures over all mature rows; `seen` marks weeks that training rows reach into."""
    known = rows.take(rows.mature)
    entries = weekly(known, model.score(known.features), manifest["thresholds"]["review"])
    trained_until = manifest["split"]["validation"]["end"]
    return [{**entry, "seen": entry["value"] < trained_until[:10]} for entry in entries]


def cost_at(rows: Rows, score: Floats, limits: dict[str, float], cost: CostModel) -> float:
    """Reference cents a day that the model's own thresholds cost on these rows."""
    fraud = rows.label.astype(np.float64)
    block, review = score >= limits["block"], score >= limits["review"]
    spent = np.where(
        block, cost.block(fraud, rows.amount),
        np.where(review, cost.review(fraud, rows.amount), cost.approve(fraud, rows.amount)),
    )  # fmt: skip
    if rows.weight is not None:
        spent = spent * rows.weight
    return float(spent.sum() / max(len(np.unique(rows.day)), 1))


def confusion(rows: Rows, score: Floats, limits: dict[str, float]) -> dict[str, dict[str, int]]:
    """Frauds and genuine transactions by decision."""
    decision = np.where(
        score >= limits["block"], "BLOCK", np.where(score >= limits["review"], "REVIEW", "APPROVE")
    )
    return {
        name: {"frauds": int(rows.label[decision == name].sum()), "rows": int((decision == name).sum())}
        for name in ("APPROVE", "REVIEW", "BLOCK")
    }


def importance(model: Model) -> list[dict[str, Any]]:
    """Features by their share of split gain, with how often they split; unused ones left out."""
    gain, splits = (model.booster.feature_importance(kind) for kind in ("gain", "split"))
    total = float(gain.sum()) or 1.0
    order = np.argsort(-gain, kind="stable")
    return [
        {"feature": model.names[place], "gain": float(gain[place] / total), "splits": int(splits[place])}
        for place in order
        if gain[place] > 0
    ]


def shap_summary(model: Model, rows: Rows, *, most_rows: int = SHAP_ROWS, seed: int = 7) -> dict[str, Any]:
    """Mean absolute SHAP value per feature and a sample of points for the strongest ones.

    Half of the sample are frauds (as far as there are), so that what drives them shows.
    """
    random = np.random.default_rng(seed)
    frauds, genuine = np.flatnonzero(rows.label > 0), np.flatnonzero(rows.label == 0)
    picked = np.sort(np.concatenate((
        random.permutation(frauds)[: most_rows // 2],
        random.permutation(genuine)[: most_rows - most_rows // 2],
    )))  # fmt: skip
    sample = rows.features[picked]
    contribution = model.contributions(sample)
    strength = np.abs(contribution[:, :-1]).mean(axis=0)
    top = np.argsort(-strength, kind="stable")[:SHAP_FEATURES]
    return {
        "rows": len(picked),
        "expected_log_odds": float(contribution[0, -1]),
        "mean_absolute": {model.names[place]: float(strength[place]) for place in top},
        "points": {
            model.names[place]: {
                "shap": np.round(contribution[:400, place], 4).tolist(),
                "rank": _ranks(sample[:400, place]),
            }
            for place in top
        },
    }


def _ranks(values: Floats) -> list[float | None]:
    """Each value's rank among the known ones as 0..1 (colour of a SHAP dot), ties in the middle of
    theirs; None if missing."""
    known = np.sort(values[np.isfinite(values)])
    if not len(known):
        return [None] * len(values)
    ranks = (np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")) / (
        2 * len(known)
    )
    return [
        round(float(rank), 3) if np.isfinite(value) else None
        for rank, value in zip(ranks, values, strict=True)
    ]


def compare(version: str, rows: Rows, score: Floats, *, rounds: int = 200) -> dict[str, Any] | None:
    """The champion on the same rows; None if it reads features that the set lacks."""
    model, _ = saved_model(version)
    if any(name not in rows.names for name in model.names):
        return None
    places = [rows.names.index(name) for name in model.names]
    other = model.score(rows.features[:, places])
    figures = metrics.summary(rows.label, other, rows.amount, rows.weight)
    ours = metrics.average_precision(metrics.rank(rows.label, score, rows.weight))
    return {
        "version": version,
        "metrics": figures,
        "average_precision_difference": ours - figures["average_precision"],
        "interval": difference_interval(
            rows.label, score, other, metrics.average_precision,
            groups=rows.customer, weight=rows.weight, rounds=rounds,
        ),
    }  # fmt: skip


def _microseconds(text: str) -> int:
    return int(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64))


def write_evidence(version: str, rows: Rows, *, champion: str | None = None, rounds: int = 200) -> Path:
    """Measure, write card.json and card.html, and return the latter's path.

    Compares with the present champion unless another version is named.
    """
    from training.promote import read_deployment

    against = champion or read_deployment().champion
    card = gather(version, rows, champion=against, rounds=rounds)
    folder = settings().results / "models" / version
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_null_nan(card), indent=1, allow_nan=False)
    (folder / "card.json").write_text(text, encoding="utf-8")
    (folder / "card.html").write_text(card_html(json.loads(text)), encoding="utf-8")
    return folder / "card.html"


def _null_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _null_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.evidence", description="Write a model's card.")
    parser.add_argument("--dataset", type=Path, required=True, help="the training set of the model")
    parser.add_argument("--version", help="model version (default: the newest saved)")
    parser.add_argument("--champion", help="version to compare with (default: the present champion)")
    parser.add_argument("--truth", type=Path, help="ground_truth.parquet, for figures by type of fraud")
    options = parser.parse_args(argv)
    try:
        version = options.version or newest_version()
        rows = read_rows(options.dataset)
        if options.truth:
            rows = with_fraud_types(rows, options.truth)
        print(f"evidence: {write_evidence(version, rows, champion=options.champion)}")
    except (LookupError, TrainingSetError, metrics.NoFraudError) as error:
        print(f"evidence: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
