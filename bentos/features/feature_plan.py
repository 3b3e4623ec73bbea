"""The FeatureService as Feast's registry has it, and how the service notices that it changed.

`python -m bentos.features.feature_plan` resolves `fraud.features.entities.FEATURE_SERVICE` and writes
`<home>/serving/feature_plan.json`. It runs in a process of its own: Feast and pandas stay out of
the workers. A worker starts with the plan of the feature tables, which a test holds equal to the
registry's, and takes up whatever the registry says later (ttl, project, names of views) between
two batches. A registry that lacks a feature which the models see is refused and reported.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from bentos.features.online_features import EntityPlan, FeaturePlan, OnlineFeatures, ViewPlan, table_plan
from fraud.features.entities import ENTITIES, FEATURE_SERVICE
from fraud.features.profiles import SERVED_PROFILES
from machine.beside import start_beside
from stores.settings import Settings, settings

_log = logging.getLogger("tollgate.features")
#: Seconds between two resolutions (materializing writes to the registry too, and importing Feast
#: costs seconds), and until the first one: a worker's first seconds belong to its callers.
_PAUSE: Final = 300.0
_FIRST: Final = 20.0


class PlanError(ValueError):
    """A registry that the service cannot use; the text says what is missing."""


def plan_path(home: Path) -> Path:
    return home / "serving" / "feature_plan.json"


def resolve(store: Any) -> FeaturePlan:
    """The plan in the registry of `store` (a feast.FeatureStore); raise `PlanError`."""
    service = store.get_feature_service(FEATURE_SERVICE)
    wanted: dict[str, list[str]] = {}
    on_demand = {view.name: view for view in store.list_on_demand_feature_views()}
    for projection in service.feature_view_projections:
        if projection.name in on_demand:
            for source in on_demand[projection.name].source_feature_view_projections.values():
                wanted.setdefault(source.name, []).extend(feature.name for feature in source.features)
        else:
            wanted.setdefault(projection.name, []).extend(feature.name for feature in projection.features)
    join_keys = {entity.name: entity.join_key for entity in store.list_entities()}
    views: dict[str, dict[str, ViewPlan]] = {entity.key: {} for entity in ENTITIES}
    for name, features in wanted.items():
        view = store.get_feature_view(name)
        key = join_keys[view.entities[0]]
        ttl_us = int(view.ttl.total_seconds() * 1_000_000) if view.ttl else 2**62
        entity = next((entity for entity in ENTITIES if entity.key == key), None)
        if entity is None:
            raise PlanError(f"{name} is keyed by {key}, which no transaction names")
        kind = "velocity" if entity.state_feature in features else "profile"
        views[key][kind] = ViewPlan(name, tuple(dict.fromkeys(features)), ttl_us)
    return checked(
        FeaturePlan(
            store.project,
            tuple(
                EntityPlan(
                    entity.name,
                    entity.key,
                    *[_view(views, entity.key, kind) for kind in ("profile", "velocity")],
                )
                for entity in ENTITIES
            ),
        )
    )


def _view(views: dict[str, dict[str, ViewPlan]], key: str, kind: str) -> ViewPlan:
    try:
        return views[key][kind]
    except KeyError:
        raise PlanError(f"{FEATURE_SERVICE} has no {kind} view keyed by {key}") from None


def checked(plan: FeaturePlan) -> FeaturePlan:
    """`plan` in the vector's order of features; raise `PlanError` if it lacks one of them."""
    entities = []
    for entity in plan.entities:
        served = SERVED_PROFILES[entity.name]
        lacking = set(served) - set(entity.profile.features)
        if lacking:
            raise PlanError(f"{entity.profile.name} lacks {', '.join(sorted(lacking))}")
        profile = ViewPlan(entity.profile.name, served, entity.profile.ttl_us)
        entities.append(EntityPlan(entity.name, entity.key, profile, entity.velocity))
    return FeaturePlan(plan.project, tuple(entities))


class PlanRoom:
    """Keeps the plan current. `features` may be replaced between any two awaits."""

    def __init__(self, chosen: Settings) -> None:
        self._path = plan_path(chosen.home)
        self._registry = None if chosen.feast.registry_url else chosen.home / "registry.db"
        self._home = chosen.home
        self._seen: int | None = None
        self._asked = time.monotonic() - _PAUSE + _FIRST
        self._resolver: subprocess.Popen[bytes] | None = None
        self.features = OnlineFeatures(table_plan(chosen.feast.project))
        self.error: str | None = None

    def refresh(self) -> None:
        """Take up a plan that was written since the last look; ask for one if the registry is newer."""
        written = _modified(self._path)
        if written is not None and written != self._seen:
            self._seen = written
            self._take()
        if self._resolver is not None and self._resolver.poll() is None:
            return
        now = time.monotonic()
        registry = _modified(self._registry) if self._registry is not None else time.time_ns()
        if registry is not None and (written is None or registry > written) and now - self._asked >= _PAUSE:
            self._asked = now
            self._resolver = start_beside(self._home, "bentos.features.feature_plan", quiet=True)

    def _take(self) -> None:
        try:
            answer = msgspec.json.decode(self._path.read_bytes(), type=_Resolved)
        except (OSError, msgspec.DecodeError) as error:
            self.error = f"{self._path.name}: {type(error).__name__}"
            return
        if answer.plan is None:
            self.error = answer.error
            _log.error(
                "the registry's features cannot be served, the plan before stays",
                extra={"reason": self.error},
            )
            return
        self.error = None
        if answer.plan != self.features.plan:
            self.features = OnlineFeatures(answer.plan)
            _log.info("took up the registry's feature plan", extra={"service": FEATURE_SERVICE})

    async def close(self) -> None:
        if self._resolver is not None and self._resolver.poll() is None:
            self._resolver.terminate()
            await asyncio.to_thread(self._resolver.wait)


class _Resolved(msgspec.Struct, frozen=True):
    plan: FeaturePlan | None = None
    error: str | None = None


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def main() -> int:
    """Resolve and write; several workers that ask at once cause one resolution."""
    path = plan_path(settings().home)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0
        # The moment before reading: a registry that changes meanwhile is newer than the plan.
        begun = time.time_ns()
        from feast.errors import FeastObjectNotFoundException

        from feature_repo.store import open_store

        try:
            resolved = _Resolved(plan=resolve(open_store()))
        except (PlanError, FeastObjectNotFoundException) as error:
            resolved = _Resolved(error=str(error))
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(msgspec.json.encode(resolved))
        os.utime(unfinished, ns=(begun, begun))
        unfinished.replace(path)
    features = sum(len(entity.profile.features) for entity in resolved.plan.entities) if resolved.plan else 0
    print(resolved.error or f"{FEATURE_SERVICE}: {features} profile features")
    return 1 if resolved.error else 0


if __name__ == "__main__":
    raise SystemExit(main())
