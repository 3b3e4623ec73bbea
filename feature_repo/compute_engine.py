"""The compute engine of ``feast materialize``: Feast's local one, which knows what is computed elsewhere.

The aggregations of a declared stream view are computed by the stream, at every event; its log holds the
states they are made from. Feast's engine would aggregate the log's rows once more, or refuse to.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

from feast.infra.common.materialization_job import MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.stream_feature_view import StreamFeatureView

from feature_repo.declare import STREAM_TAG


class StoredStatesComputeEngineConfig(LocalComputeEngineConfig):
    """Nothing to configure."""

    type: str = "feature_repo.compute_engine.StoredStatesComputeEngine"  # type: ignore[assignment]


class StoredStatesComputeEngine(LocalComputeEngine):
    """Materializes views as Feast does, and declared stream views as the states that their log holds."""

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        view = task.feature_view
        if isinstance(view, StreamFeatureView) and STREAM_TAG in view.tags:
            stored = copy(view)
            stored.aggregations = []
            task = replace(task, feature_view=stored)
        return super()._materialize_one(registry, task, **kwargs)
