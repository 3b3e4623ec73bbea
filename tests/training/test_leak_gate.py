"""Training that looks like a leak is refused with the two ways on: drop the feature, or go on, marked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedded.summary import leak_words
from training.evidence import write_evidence
from training.plan import Plan, Trained
from training.refusal import LeakError, RefusedError
from training.rows import Rows
from training.save import model_folder, save
from training.train import main
from training.train import train as train_aloud

SMALL = Plan(delay_days=7, rounds=40, patience=10, threads=1)


def train(rows: Rows, plan: Plan) -> Trained:
    return train_aloud(rows, plan, progress=lambda _: None)


def knowing(rows: Rows) -> Rows:
    """`rows` with a feature that knows the label."""
    features = rows.features.copy()
    noise = np.random.default_rng(1).normal(0, 0.05, len(rows))
    features[:, rows.names.index("noise_a")] = rows.label + noise
    return replace(rows, features=features)


def test_a_refusal_offers_the_two_ways_on(session_rows: Rows) -> None:
    with pytest.raises(LeakError, match=r"--drop noise_a.*--on-leak mark") as refused:
        train(knowing(session_rows), SMALL)
    assert refused.value.leak.auc > 0.995
    name, alone = refused.value.leak.strongest[0]
    assert name == "noise_a" and alone > 0.995


def test_a_dropped_feature_is_read_by_no_tree(session_rows: Rows) -> None:
    trained = train(knowing(session_rows), replace(SMALL, drop=("noise_a",)))
    assert trained.leak is None and "noise_a" in trained.left_out
    used = dict(zip(trained.model.names, trained.model.booster.feature_importance("split"), strict=True))
    assert used["noise_a"] == 0
    with pytest.raises(RefusedError, match="did you mean noise_a"):
        train(session_rows, replace(SMALL, drop=("noise_aa",)))


def test_a_model_that_goes_on_is_marked_in_manifest_and_card(session_rows: Rows, home: Path) -> None:
    rows = knowing(session_rows)
    trained = train(rows, replace(SMALL, on_leak="mark"))
    assert trained.leak is not None
    version = save(trained, rows)
    manifest = json.loads((model_folder(version) / "manifest.json").read_text())
    assert manifest["leak"]["auc"] == trained.leak.auc and "noise_a" in manifest["leak"]["strongest"]
    page = write_evidence(version, rows, rounds=20)
    assert "Marked as leaking" in page.read_text()
    assert "training looked like a leak: AUC" in leak_words(manifest["leak"])


def test_the_command_says_both_ways_and_takes_them(
    make_folder: Callable[..., Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = [
        "--dataset",
        str(make_folder()),
        "--auc-ceiling",
        "0.6",
        "--rounds",
        "20",
        "--threads",
        "1",
        "--no-save",
    ]
    assert main(usual) == 1
    said = capsys.readouterr().err
    assert "the strongest single features are" in said and "--drop " in said and "--on-leak mark" in said
    assert main([*usual, "--on-leak", "mark"]) == 0
    assert "marked, as --on-leak asks" in capsys.readouterr().out
    assert main([*usual, "--drop", "nothing_of_the_kind"]) == 1
    assert "there is no such feature" in capsys.readouterr().err
