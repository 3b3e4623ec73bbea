"""Register a trained model in the BentoML model store, as text and numbers only.

    <home>/bentoml/models/tollgate_fraud/<version>/
        model.txt          LightGBM's native text
        manifest.json      what the service needs to know, and what the model was judged by
        signature          of both, under the deployment's keys: without it the service refuses the model
        reference.parquet  scored held-out rows, for drift

No pickle is written, so none is ever loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stores import models
from stores.keys import open_keys
from stores.model_signature import sign_model
from stores.settings import REPOSITORY, settings
from training.metrics import Floats
from training.plan import Trained
from training.rows import Rows

REFERENCE_ROWS: Final = 100_000
QUANTILES: Final = tuple(np.linspace(0, 1, 21).round(2).tolist())
PACKAGES: Final = ("lightgbm", "feast", "numpy", "pyarrow", "bentoml", "optuna")


def bentoml_home() -> Path:
    """The model store of this home, made known to BentoML; call it before importing bentoml."""
    root = settings().home.resolve() / "bentoml"
    root.mkdir(parents=True, exist_ok=True)
    os.environ["BENTOML_HOME"] = str(root)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    return root


def model_folder(version: str) -> Path:
    """Where the store keeps `version`; `LookupError` for what is not the name of a version."""
    try:
        return models.model_folder(settings().home, version)
    except models.ModelError as error:
        raise LookupError(str(error)) from None


def newest_version() -> str:
    """The version saved last; `LookupError` if the store holds none."""
    found = models.newest_version(settings().home)
    if found is None:
        raise LookupError("no model is saved yet; run `python -m training.train --dataset DIR`")
    return found


def version_of(trained: Trained) -> str:
    """`<cut's date>-<digest>`: the same data and code give the same version."""
    whole = hashlib.sha256(
        (trained.model.digest + json.dumps(trained.model.calibration) + trained.cut).encode()
    ).hexdigest()
    return f"{re.sub(r'[^0-9]', '', trained.cut)[:8]}-{whole[:10]}"


def save(trained: Trained, rows: Rows, *, name: str = models.MODEL_NAME) -> str:
    """Put `trained` in the model store and return its version.

    `rows` is the training set it came from. Saving the same model again replaces it.
    """
    root = bentoml_home()
    import bentoml
    from bentoml._internal.models.model import ModelStore  # the store of a home, not of the process
    from bentoml.exceptions import NotFound

    (root / "models").mkdir(exist_ok=True)
    store = ModelStore(root / "models")
    version = version_of(trained)
    tag = f"{name}:{version}"
    with suppress(NotFound):
        bentoml.models.delete(tag, _model_store=store)
    reference = reference_table(trained, rows)
    labels = {"framework": "lightgbm", "format": "text"}
    with bentoml.models.create(
        tag, labels=labels, metadata=_plain(trained.metrics), _model_store=store
    ) as model:
        folder = Path(model.path)
        (folder / "model.txt").write_text(trained.model.text, encoding="utf-8")
        pq.write_table(reference, folder / "reference.parquet", compression="zstd")
        text = json.dumps(manifest(trained, rows, version), indent=1, allow_nan=False)
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        sign_model(folder, version, open_keys(settings()).seal("models"))
    return version


def manifest(trained: Trained, rows: Rows, version: str) -> dict[str, Any]:
    """What travels with the trees, as JSON values (NaN as null)."""
    seen = rows.take(rows.mature & trained.split.refit.mask(rows.event_us))
    described = feature_reference(seen)
    result: dict[str, Any] = {
        "version": version,
        "digest": trained.model.digest,
        "features": list(trained.model.names),
        "thresholds": {"review": trained.thresholds.review, "block": trained.thresholds.block},
        "calibration": trained.model.calibration,
        "patterns": [limits.report() for limits in trained.patterns.limits],
        "missing": {"rates": trained.plan.missing, **trained.patterns.report()},
        "metrics": _plain(trained.metrics),
        "validation_metrics": _plain(trained.validation_metrics),
        "feature_reference": described,
        "reference": {name: facts["quantiles"] for name, facts in described.items() if facts["quantiles"]},
        "gain": gains(trained),
        "trained_at_cut": trained.cut,
        "split": trained.split.text(),
        "trees": trained.trees,
        "final": trained.plan.final,
        "left_out": list(trained.left_out),
        "dropped": list(trained.plan.drop),
        "leak": trained.leak.report() if trained.leak else None,
        "settings": trained.settings,
        "ensemble": trained.ensemble,
        "cost_model": trained.thresholds.report()["model"],
        "alerts_per_day": trained.plan.alerts_per_day,
        "data": trained.data,
        "code": code_facts(),
    }
    return json.loads(json.dumps(_plain(result)))  # type: ignore[no-any-return]  # a dict of JSON values


def gains(trained: Trained) -> dict[str, float]:
    """Each used feature's share of all split gain."""
    gain = trained.model.booster.feature_importance("gain")
    total = float(gain.sum()) or 1.0
    return {
        name: float(value / total) for name, value in zip(trained.model.names, gain, strict=True) if value > 0
    }


def feature_reference(rows: Rows, *, most_rows: int = REFERENCE_ROWS) -> dict[str, dict[str, Any]]:
    """Per feature: mean, deviation, share missing and 21 quantiles (0, .05 ... 1), NaN left out."""
    step = max(-(-len(rows) // most_rows), 1)
    sample = rows.features[::step]
    described: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(rows.names):
        values = sample[:, place]
        known = values[np.isfinite(values)]
        described[name] = {
            "mean": float(known.mean()) if len(known) else None,
            "std": float(known.std()) if len(known) else None,
            "missing": 1.0 - len(known) / max(len(values), 1),
            "quantiles": np.quantile(known, QUANTILES).tolist() if len(known) else [],
        }
    return described


def reference_table(trained: Trained, rows: Rows, *, most_rows: int = REFERENCE_ROWS) -> pa.Table:
    """Rows that drift is measured against: the test period, scored by a model that never saw
    it, and thinned evenly to `most_rows`. Columns: the features, score, is_fraud, event_timestamp,
    and `weight`: how many transactions of the period each row stands for beside the others (1 in a
    set that was not thinned)."""
    late = rows.take(rows.mature & trained.split.test.mask(rows.event_us))
    step = max(-(-len(late) // most_rows), 1)
    picked = np.zeros(len(late), dtype=bool)
    picked[::step] = True
    sample = late.take(picked)
    score: Floats = trained.model.score(sample.features)
    columns: dict[str, pa.Array] = {
        name: pa.array(sample.features[:, place], from_pandas=True) for place, name in enumerate(sample.names)
    }
    columns["score"] = pa.array(score)
    columns["is_fraud"] = pa.array(sample.label.astype(bool))
    columns["event_timestamp"] = pa.array(sample.event_us, pa.timestamp("us", "UTC"))
    columns["weight"] = pa.array(np.ones(len(sample)) if sample.weight is None else sample.weight)
    return pa.table(columns)


def code_facts() -> dict[str, Any]:
    """Which code made the model: commit (with "+changes" if the tree is not clean) and packages."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in PACKAGES},
    }


def commit() -> str | None:
    """The checkout's commit, or None outside a git checkout."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+changes" if changed else head


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities as null, numpy numbers as Python's."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def main(argv: list[str] | None = None) -> int:
    """List the store's versions, newest first, with what they were judged by; or sign one."""
    parser = argparse.ArgumentParser(prog="python -m training.save", description="List the saved models.")
    parser.add_argument(
        "--sign", metavar="VERSION", help="sign a model that came from elsewhere, or before a key is retired"
    )
    options = parser.parse_args(argv)
    if options.sign is not None:
        try:
            sign_model(model_folder(options.sign), options.sign, open_keys(settings()).seal("models"))
        except (LookupError, OSError) as error:
            print(f"save: {error}", file=sys.stderr)
            return 1
        print(f"{options.sign}: signed; the service takes it now")
        return 0
    saved = models.versions(settings().home)
    if not saved:
        print("no model saved yet; train one with `python -m training.train --dataset DIR --save`")
        return 1
    for version in saved:
        facts = json.loads((model_folder(version) / "manifest.json").read_bytes())
        figures = facts["metrics"]
        limits = facts["thresholds"]
        print(
            f"{facts['version']}  cut {facts['trained_at_cut']}  AP {figures['average_precision']:.3f}  "
            f"AUC {figures['auc']:.3f}  review >= {limits['review']:.4f}  block >= {limits['block']:.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
