"""A run in MLflow for every saved model, where a team keeps its runs there. Optional.

    pip install 'tollgate[tracking]'
    python -m training.train --dataset DIR --track

The store is `MLFLOW_TRACKING_URI`, or a SQLite file in the home. The model store of this
platform stays the one that serves: a run holds what the model was judged by, and copies of its
text, manifest and card.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

from stores.models import MODEL_NAME
from stores.settings import settings
from training.save import model_folder

EXPERIMENT: Final = MODEL_NAME
MISSING: Final = "MLflow is not installed; run `pip install 'tollgate[tracking]'` or leave out --track"


class TrackingError(RuntimeError):
    """The run could not be kept; the text says why. The model itself is saved all the same."""


def track(version: str) -> str:
    """Keep the saved model `version` as a run of the experiment `tollgate_fraud`; its run id.

    A second call for the same version changes the run that is there.
    """
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise TrackingError(MISSING) from error
    folder = model_folder(version)
    facts = json.loads((folder / "manifest.json").read_bytes())
    card = settings().results / "models" / version
    try:
        uri, artifacts = store()
        mlflow.set_tracking_uri(uri)
        known = mlflow.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else mlflow.create_experiment(EXPERIMENT, artifacts)
        found = mlflow.search_runs(
            [experiment], f"tags.version = '{version}'", max_results=1, output_format="list"
        )
        run_id = found[0].info.run_id if found else None
        with mlflow.start_run(run_id, experiment, run_name=None if run_id else version) as run:
            if not run_id:
                mlflow.log_params(_parameters(facts))
            mlflow.set_tags(
                {"version": version, "digest": facts["digest"], "commit": facts["code"]["commit"]}
            )
            mlflow.log_metrics(
                _figures(facts["metrics"]) | _figures(facts["validation_metrics"], "validation_")
            )
            for path in (
                folder / "model.txt",
                folder / "manifest.json",
                card / "card.html",
                card / "card.json",
            ):
                if path.is_file():
                    mlflow.log_artifact(str(path))
            return str(run.info.run_id)
    except MlflowException as error:
        raise TrackingError(f"MLflow refused the run: {error}") from error


def store() -> tuple[str, str | None]:
    """The tracking URI and where artifacts go: `MLFLOW_TRACKING_URI` and what it says, else the home."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named, None
    home = settings().home.resolve() / "mlflow"
    home.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home / 'runs.db'}", (home / "artifacts").as_uri()


def _parameters(facts: dict[str, Any]) -> dict[str, Any]:
    """Settings of the trees, the split and what the set was made of, as flat names."""
    split = {f"{name}_{end}": span[end] for name, span in facts["split"].items() for end in span}
    return {**facts["settings"], **split, "trees": facts["trees"], "trained_at_cut": facts["trained_at_cut"],
            **facts["thresholds"]}  # fmt: skip


def _figures(figures: dict[str, float | None], prefix: str = "") -> dict[str, float]:
    return {prefix + name: float(value) for name, value in figures.items() if value is not None}
