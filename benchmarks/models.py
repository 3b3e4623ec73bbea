"""Models of several kinds on the same rows: `results/bench/models.json`.

    python -m benchmarks.models [--set DIR]

For each kind: microseconds a row when rows come alone, and 32 together; kilobytes; the largest difference
of its served form from its own library's score; average precision on the test period. The LightGBM kinds
are scored by the service's own calls (`bentos.models.model`), the others by ONNX Runtime, one thread each.
Every kind learns from the same thinned training rows, masked as in training (`training.missing`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.lakes import CommandError
from benchmarks.quality_set import newcomers_set
from bentos.models.model import Model as Served
from stores.models import read_model_files
from stores.patterns import views
from stores.settings import settings
from training import metrics
from training.ensemble import SECOND, merged
from training.missing import rates, with_masked
from training.model import Model, Sample, fit, text_of
from training.onnx_export import export
from training.rows import Rows, TrainingSetError, read_rows

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]

DAY_US: Final = 86_400_000_000
TEST_DAYS: Final = 14
DELAY_DAYS: Final = 7
ALONE: Final = 300
TOGETHER: Final = 32


@dataclass(frozen=True)
class Kind:
    """A model in its served form: `served` and `own` score rows, `size` is in bytes."""

    name: str
    served: Score
    own: Score
    size: int


@contextmanager
def served(text: str, names: tuple[str, ...]) -> Iterator[Served]:
    """A LightGBM text behind the service's calls."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        (folder / "model.txt").write_text(text, encoding="utf-8")
        manifest = {
            "version": "model", "digest": hashlib.sha256(text.encode()).hexdigest(), "features": list(names),
            "thresholds": {"review": 0.5, "block": 0.9}, "calibration": None,
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        model = Served(read_model_files(folder))
        try:
            yield model
        finally:
            model.close()


def onnx_score(content: bytes) -> Score:
    """Probability of fraud of each row by ONNX Runtime, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    last = session.get_outputs()[-1].name

    def score(rows: Floats) -> Floats:
        found = np.asarray(session.run([last], {name: rows.astype(np.float32)})[0], dtype=np.float64)
        return np.asarray(found[:, -1])

    return score


def split(rows: Rows, most: int, seed: int) -> tuple[Sample, Rows]:
    """What is learned from, thinned, and the test period after a label delay."""
    end = int(rows.event_us[-1])
    early = rows.take(rows.event_us < end - (TEST_DAYS + DELAY_DAYS) * DAY_US)
    late = rows.take(rows.event_us >= end - TEST_DAYS * DAY_US)
    random = np.random.default_rng(seed)
    share = min(1.0, most / max(len(early), 1))
    kept = early.take((early.label > 0) | (random.random(len(early)) < share))
    weight = np.where(kept.label > 0, 1.0, 1 / share)
    sample = Sample(kept.features, kept.label, weight)
    drop = np.zeros(len(rows.names), dtype=bool)
    return with_masked(sample, rows.names, rates(views().patterns()), drop, seed=seed), late


def boosted(sample: Sample, names: tuple[str, ...], trees: int, **changes: Any) -> Model:
    booster, _ = fit(sample, names, changes, rounds=trees, threads=1)
    return Model(text_of(booster, trees), names)


def lightgbm_kinds(sample: Sample, names: tuple[str, ...], trees: int) -> dict[str, Model]:
    """The fast path's own, and what could make it cheaper."""
    whole = boosted(sample, names, trees)
    other = boosted(sample, names, trees // 2, **SECOND)
    taught = whole.raw(sample.features, threads=1)
    # A student learns the teacher's scores, each row once as fraud and once as genuine, weighted by them.
    weight = np.ones(len(sample.label)) if sample.weight is None else sample.weight
    student = Sample(
        np.concatenate([sample.features, sample.features]),
        np.concatenate([np.ones(len(taught)), np.zeros(len(taught))]).astype(np.int8),
        np.concatenate([weight * taught, weight * (1 - taught)]),
    )
    return {
        "lightgbm": whole,
        "lightgbm_pruned": Model(text_of(whole.booster, trees // 2), names),
        "lightgbm_small_leaves": boosted(sample, names, trees, num_leaves=7),
        "lightgbm_distilled": boosted(student, names, trees // 4, num_leaves=15),
        "weighted_ensemble": Model(merged({whole.text: 0.7, other.text: 0.3}), names),
    }


def sklearn_kinds(sample: Sample) -> Iterator[tuple[str, Score, bytes]]:
    """scikit-learn's, as their own library scores them and as ONNX."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # What ONNX reads is 32 bits: they learn from what they will be asked.
    rows = np.clip(sample.features, -1e30, 1e30).astype(np.float32).astype(np.float64)
    made = {
        "sklearn_logistic_onnx": (
            make_pipeline(
                SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(),
                LogisticRegression(max_iter=200, C=0.01),
            ),
            "logisticregression__sample_weight",
        ),
        "sklearn_boosting_onnx": (
            HistGradientBoostingClassifier(max_iter=80, random_state=7), "sample_weight",
        ),
    }  # fmt: skip
    for name, (model, weight) in made.items():
        model.fit(rows, sample.label, **{weight: sample.weight})
        content = to_onnx(model, rows[:1].astype(np.float32), options={"zipmap": False}).SerializeToString()

        def own(asked: Floats, model: Any = model) -> Floats:
            return np.asarray(model.predict_proba(asked.astype(np.float32).astype(np.float64))[:, 1])

        yield name, own, content


def measured(kind: Kind, late: Rows) -> dict[str, Any]:
    """One line of results/bench/models.json. Times are the best of several turns, processor time."""
    rows = late.features
    score = kind.served(rows)
    sample = rows[:: max(len(rows) // 2_000, 1)]
    error = float(np.abs(kind.served(sample) - kind.own(sample)).max())
    return {
        "kind": kind.name,
        "us_per_row": round(_seconds(kind.served, rows[:ALONE], 1) * 1e6, 2),
        "us_per_row_of_32": round(_seconds(kind.served, rows[: 10 * TOGETHER], TOGETHER) * 1e6, 2),
        "size_kb": round(kind.size / 1000, 1),
        "max_score_error": error,
        "ap": metrics.average_precision(metrics.rank(late.label, score)),
    }


def _seconds(score: Score, rows: Floats, together: int) -> float:
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        for at in range(0, len(rows), together):
            score(rows[at : at + together])
        best = min(best, time.process_time() - begun)
    return best / len(rows)


def main(argv: list[str] | None = None) -> int:
    """Train, measure and write every kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument(
        "--set", type=Path, help="a training set (default: the one with newcomers, built once)"
    )
    parser.add_argument("--rows", type=int, default=60_000, help="genuine rows to learn from, about")
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(argv)
    try:
        rows = read_rows(options.set or newcomers_set()[0])
    except (CommandError, TrainingSetError) as error:
        print(f"models: {error}", file=sys.stderr)
        return 1
    sample, late = split(rows, options.rows, options.seed)
    found: list[dict[str, Any]] = []

    def keep(kind: Kind) -> None:
        found.append(measured(kind, late))
        print(json.dumps(found[-1]), flush=True)

    trained = lightgbm_kinds(sample, rows.names, options.trees)
    for name, model in trained.items():
        with served(model.text, rows.names) as fast:
            keep(Kind(name, fast.raw, partial(model.raw, threads=1), len(model.text.encode())))
    content = export(trained["lightgbm"])
    own = partial(trained["lightgbm"].raw, threads=1)
    keep(Kind("lightgbm_onnx", onnx_score(content), own, len(content)))
    for name, library, onnx in sklearn_kinds(sample):
        keep(Kind(name, onnx_score(onnx), library, len(onnx)))
    out = settings().results / "bench" / "models.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"models: {out}")
    return 0


if __name__ == "__main__":
    np.seterr(over="ignore")
    sys.exit(main())
