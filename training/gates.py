"""Gates between the stages of a model: each reads evidence from files and says pass or why not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from stores.decisions import decisions_folder
from stores.keys import open_keys
from stores.lake_files import parquet_files
from stores.model_signature import model_digest, model_verifies, read_signature
from stores.settings import settings
from training.calibration import apply_calibration
from training.missing import MOST_STOPPED
from training.refusal import diverged
from training.save import model_folder

#: One entry per gate: its name, whether it passed, and the reason with the figures.
Verdict = list[dict[str, Any]]

#: How much average precision a challenger may lose against the champion (its other merits
#: may be worth that), when both are judged on the same rows.
TOLERATED_LOSS: Final = 0.01
#: Largest rise in flagged decisions that a replay against the decision log may show.
MOST_MORE_ALERTS: Final = 1.5
REPLAYED_ROWS: Final = 50_000
#: Standard deviations that a share may lie above `MOST_STOPPED` by the chance of a small test period.
BY_CHANCE: Final = 3.0


def _check(gate: str, passed: bool, reason: str) -> Verdict:
    return [{"gate": gate, "passed": bool(passed), "reason": reason}]


def card_path(version: str) -> Path:
    """Where the figures of a version's card are."""
    return settings().results / "models" / version / "card.json"


def registered_gate(version: str) -> Verdict:
    """The model is in the store, its text has its digest, and its evidence does not refuse it."""
    folder = model_folder(version)
    if not (folder / "manifest.json").is_file():
        return _check("registered", False, f"{version} is not in the model store; train and save it first")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    digest = hashlib.sha256((folder / "model.txt").read_bytes()).hexdigest()
    verdict = _check(
        "digest", digest == manifest["digest"], "model.txt has the digest that its manifest names"
        if digest == manifest["digest"] else "model.txt is not the text that was registered; train it again",
    )  # fmt: skip
    signed = model_verifies(
        version,
        model_digest((folder / "model.txt").read_bytes(), (folder / "manifest.json").read_bytes()),
        read_signature(folder) or b"",
        open_keys(settings()).seal("models"),
    )
    verdict += _check(
        "signed", signed, "signed under this deployment's keys"
        if signed else f"the service refuses what is not signed: `python -m training.save --sign {version}`",
    )  # fmt: skip
    figures = manifest["metrics"]
    verdict += _check(
        "calibrated",
        not diverged(figures),
        f"Brier {figures['brier']:.6f} against {figures['brier_base_rate']:.6f} of the base rate",
    )
    verdict += _check(
        "evidence",
        card_path(version).is_file(),
        "the evidence card is there"
        if card_path(version).is_file()
        else "no evidence card; run `python -m training.evidence`",
    )
    return verdict


def champion_gate(version: str, champion: str | None) -> Verdict:
    """On the same rows, the model is not clearly worse than the champion (from its card)."""
    if champion in (None, version):
        return _check("champion", True, "no other champion to compare with")
    path = card_path(version)
    comparison = json.loads(path.read_bytes()).get("champion") if path.is_file() else None
    if not comparison or comparison.get("version") != champion:
        return _check(
            "champion", False, f"the card does not compare with {champion}; run `python -m training.evidence`"
        )
    difference = comparison["average_precision_difference"]
    low, high = comparison["interval"]
    passed = difference >= -TOLERATED_LOSS or high >= 0.0 > difference
    return _check(
        "champion",
        passed,
        f"average precision {difference:+.4f} (95% {low:+.4f} to {high:+.4f}) against {champion}, same rows",
    )


def outage_gate(version: str) -> Verdict:
    """No outage sends the customers to the analysts: under every pattern of missing views, at most
    `MOST_STOPPED` times as many are stopped as undisturbed, and reviewed as the alert budget allows."""
    path = card_path(version)
    patterns = json.loads(path.read_bytes()).get("patterns") if path.is_file() else None
    if not patterns:
        return _check("outage", False, "no figures under missing views; run `python -m training.evidence`")
    undisturbed, budget = patterns[0], json.loads(path.read_bytes())["alerts_per_day"]
    usual = undisturbed["review_rate"] + undisturbed["block_rate"]
    worst, most = "any view", 0.0
    for each in patterns[1:]:
        factor, rows = MOST_STOPPED[each["kind"]], max(each["rows"], 1)
        allowed = factor * usual + BY_CHANCE * (max(factor * usual, 1 / rows) / rows) ** 0.5
        reviews = factor * budget + BY_CHANCE * (factor * budget) ** 0.5
        found = max(
            (each["review_rate"] + each["block_rate"]) / allowed, each["reviews_per_day"] / max(reviews, 1)
        )
        if found > most:
            worst, most = each["name"], found
    return _check(
        "outage", most <= 1.0,
        f"at worst without {worst}: {most:.0%} of what may be stopped then (undisturbed {usual:.2%})",
    )  # fmt: skip


def replay_gate(version: str) -> Verdict:
    """Scoring the decision log's served vectors again raises no flood of alerts.

    Passes when there is no log yet: a canary is then the first that could fill one.
    """
    import pyarrow.dataset as ds

    root = decisions_folder(settings().home)
    files = [str(path) for path in parquet_files(root)] if root.is_dir() else []
    if not files:
        return _check("replay", True, "no decision log yet")
    folder = model_folder(version)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    source = ds.dataset(files[-200:], format="parquet")
    missing = [name for name in manifest["features"] if name not in source.schema.names]
    if missing:
        return _check("replay", False, f"the decision log lacks {missing[0]}: the served vector differs")
    table = source.head(REPLAYED_ROWS, columns=[*manifest["features"], "decision"])
    if not len(table):
        return _check("replay", True, "the decision log is empty")
    import lightgbm

    rows = np.column_stack(
        [table.column(name).to_numpy().astype(np.float64) for name in manifest["features"]]
    )
    booster = lightgbm.Booster(model_str=(folder / "model.txt").read_text(encoding="utf-8"))
    score = apply_calibration(manifest["calibration"], np.asarray(booster.predict(rows, num_threads=2)))
    alerts = int((score >= manifest["thresholds"]["review"]).sum())
    before = sum(decision != "APPROVE" for decision in table.column("decision").to_pylist())
    passed = alerts <= max(before, 10) * MOST_MORE_ALERTS
    return _check(
        "replay", passed, f"{alerts} of {len(table)} replayed decisions flagged, {before} were before"
    )
