"""The compute engine of ``feast materialize``: Spark computes what batch views declare, as of the cut.

Of a declared batch view the newest cut of the asked time is computed, unless it has been already, by the same
declaration (the platform's own job does that, with gates before and after); Feast then writes it online. Of a
stream view the states are written that its log holds: the stream computes its aggregations, at every event.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.stream_feature_view import StreamFeatureView

from feature_repo.aggregates.grid import cut_number, cut_time
from feature_repo.aggregates.run import run_cuts
from feature_repo.aggregates.views import is_computed, is_quarantined
from feature_repo.batch import BATCH_TAG
from feature_repo.declare import STREAM_TAG
from feature_repo.spark import print_progress
from fraud.features.entities import CUT_INTERVAL
from stores.declared import batch_views
from stores.settings import settings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BlockedCutError(RuntimeError):
    """A cut that a gate has blocked: it is not computed again and put online by another door."""


class DeclaredComputeEngineConfig(LocalComputeEngineConfig):
    """Nothing to configure."""

    type: str = "feature_repo.compute_engine.DeclaredComputeEngine"  # type: ignore[assignment]


class DeclaredComputeEngine(LocalComputeEngine):
    """Computes declared batch views, then materializes every view as Feast does."""

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        view = task.feature_view
        if isinstance(view, StreamFeatureView) and STREAM_TAG in view.tags:
            stored = copy(view)
            stored.aggregations = []
            task = replace(task, feature_view=stored)
        elif BATCH_TAG in view.tags:
            try:
                compute_cut(view.name, _aware(task.start_time), _aware(task.end_time))
            except (ValueError, BlockedCutError) as error:
                return LocalMaterializationJob(
                    job_id=f"{view.name}-{task.end_time}",
                    status=MaterializationJobStatus.ERROR,
                    error=error,
                )
        return super()._materialize_one(registry, task, **kwargs)


def _aware(time: datetime) -> datetime:
    """Feast hands naive times over as UTC."""
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def due_cut(end: datetime, now: datetime) -> datetime:
    """The newest cut up to `end` that is visible at `now`: its lag has passed, so that what happened before
    it has arrived."""
    visible = now - timedelta(minutes=settings().history.cut_lag_minutes)
    latest = min(end, visible)
    return cut_time((latest - _EPOCH) // CUT_INTERVAL)


def compute_cut(view: str, start: datetime, end: datetime) -> bool:
    """Compute the newest cut in ``[start, end]`` for `view`, and with it for every batch view that lacks it;
    whether anything was computed.

    Raises `BlockedCutError` for a cut that a gate has blocked.
    """
    cut = due_cut(end, datetime.now(UTC))
    if cut < start:
        return False
    missing = [each.name for each in batch_views() if not is_computed(each, cut)]
    if view not in missing:
        return False
    if is_quarantined(cut):
        raise BlockedCutError(
            f"a gate has blocked the cut {cut.isoformat()}: mend its cause and run "
            f"`tollgate materialize --cut {cut.isoformat()}`"
        )
    run_cuts([cut_time(cut_number(cut))], progress=print_progress, views=missing)
    return True
