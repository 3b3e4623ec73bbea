"""The feature store, from any working directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from feast import FeatureStore

REPOSITORY: Final = Path(__file__).resolve().parent


def open_store() -> FeatureStore:
    """Feast's SDK on this repository; locations come from the settings of this process."""
    from feast import FeatureStore

    return FeatureStore(repo_path=str(REPOSITORY))


def apply_definitions() -> None:
    """What ``feast -c feature_repo apply`` does, within this process."""
    from feature_repo import definitions

    store = open_store()
    store.apply(definitions.objects())
    store.refresh_registry()
