"""The feature store, from any working directory."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from feast import FeatureStore

REPOSITORY: Final = Path(__file__).resolve().parent


def open_store() -> FeatureStore:
    """Feast's SDK on this repository; locations come from the settings of this process."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(REPOSITORY))
    # Said again for every source that is read back. Modules that Feast loads with a store put
    # filters of their own in front.
    warnings.filterwarnings("ignore", "The spark data source API is an experimental", RuntimeWarning)
    warnings.filterwarnings("ignore", "On demand feature view is an experimental", RuntimeWarning)
    return store


def apply_again_if_changed() -> None:
    """Where other standard features were declared than this process computes by, apply once more in a process
    that computes by these: on-demand views are registered with the features that their function gives."""
    from feature_repo.derive import declared_standard
    from fraud.declared.figures import encode_standard
    from fraud.features.plan import STANDARD

    if encode_standard(declared_standard()) != encode_standard(STANDARD):
        again = "from feature_repo.store import apply_definitions; apply_definitions()"
        subprocess.run([sys.executable, "-c", again], check=True)


def apply_definitions() -> None:
    """What ``feast -c feature_repo apply`` does, within this process."""
    # Feast's Spark store, which it loads late, would have its warnings said again (`open_store`).
    from feature_repo import definitions, offline_store, standard  # noqa: F401

    # Sources hold the lake's folder as it was set when the module was read.
    importlib.reload(standard)
    definitions = importlib.reload(definitions)
    store = open_store()
    store.apply(definitions.objects())
    store.refresh_registry()  # type: ignore[no-untyped-call]
