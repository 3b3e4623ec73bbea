"""The FeatureService as Feast's registry has it, and how the service notices that it changed.

`python -m bentos.features.feature_plan` resolves `fraud.features.entities.FEATURE_SERVICE` and writes
`<home>/serving/feature_plan.json`. It runs in a bounded process of its own: Feast and pandas stay
out of the workers, and nothing that the registry holds is executed (`feature_repo.stored_definitions`).
A worker starts with the plan of the feature tables, which a test holds equal to the registry's, and takes
up whatever the registry says later (ttl, project, names of views) between two batches. A registry that
lacks a feature which the models see is refused and reported.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from bentos.features.online_features import EntityPlan, FeaturePlan, OnlineFeatures, ViewPlan, table_plan
from fraud.features.entities import ENTITIES, FEATURE_SERVICE
from fraud.features.profiles import SERVED_PROFILES
from machine.contained import Contained, bound_this_process, python
from stores.files import written_whole
from stores.settings import REPOSITORY, Settings, settings

if TYPE_CHECKING:
    from feast.protos.feast.core.FeatureView_pb2 import FeatureViewSpec
    from feast.protos.feast.core.FeatureViewProjection_pb2 import FeatureViewProjection

    from feature_repo.stored_definitions import Definitions

_log = logging.getLogger("tollgate.features")
#: Seconds between two resolutions (materializing writes to the registry too, and importing Feast
#: costs seconds), and until the first one: a worker's first seconds belong to its callers.
_PAUSE: Final = 300.0
_FIRST: Final = 20.0
#: Bounds of a resolution; importing Feast takes 400 MB and, behind everything else, many seconds.
_SECONDS: Final = 240.0
_MEMORY: Final = 2_000_000_000
_BEHIND: Final = 19
_NO_TTL: Final = 2**62
#: Bytes of a plan file that a worker reads at most.
_LARGEST: Final = 1_000_000


class PlanError(ValueError):
    """A registry that the service cannot use; the text says what is missing."""


def plan_path(home: Path) -> Path:
    return home / "serving" / "feature_plan.json"


def resolve(definitions: Definitions, project: str) -> FeaturePlan:
    """The plan that the registry's `definitions` make; raise `PlanError`."""
    service = definitions.services.get(FEATURE_SERVICE)
    if service is None:
        raise PlanError(f"the registry has no feature service {FEATURE_SERVICE} in project {project}")
    wanted: dict[str, list[str]] = {}
    for projection in service.features:
        on_demand = definitions.on_demand.get(projection.feature_view_name)
        if on_demand is None:
            _want(wanted, projection)
            continue
        for source in on_demand.sources.values():
            if source.HasField("feature_view"):
                whole = source.feature_view.spec
                wanted.setdefault(whole.name, []).extend(feature.name for feature in whole.features)
            elif source.HasField("feature_view_projection"):
                _want(wanted, source.feature_view_projection)
    views: dict[str, dict[str, ViewPlan]] = {entity.key: {} for entity in ENTITIES}
    for name, features in wanted.items():
        view = definitions.views.get(name)
        if view is None or not view.entities or view.entities[0] not in definitions.entities:
            raise PlanError(f"{FEATURE_SERVICE} reads {name}, which is no view of a known entity")
        key = definitions.entities[view.entities[0]].join_key
        entity = next((entity for entity in ENTITIES if entity.key == key), None)
        if entity is None:
            raise PlanError(f"{name} is keyed by {key}, which no transaction names")
        kind = "velocity" if entity.state_feature in features else "profile"
        views[key][kind] = ViewPlan(name, tuple(dict.fromkeys(features)), _ttl_us(view))
    return checked(
        FeaturePlan(
            project,
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


def _want(wanted: dict[str, list[str]], projection: FeatureViewProjection) -> None:
    names = [feature.name for feature in projection.feature_columns]
    wanted.setdefault(projection.feature_view_name, []).extend(names)


def _ttl_us(view: FeatureViewSpec) -> int:
    """Microseconds that a value may be old; without a ttl any age will do."""
    ttl = view.ttl.seconds * 1_000_000 + view.ttl.nanos // 1000
    if ttl < 0:
        raise PlanError(f"{view.name} has a ttl below nothing")
    return min(ttl, _NO_TTL) or _NO_TTL


def _view(views: dict[str, dict[str, ViewPlan]], key: str, kind: str) -> ViewPlan:
    try:
        return views[key][kind]
    except KeyError:
        raise PlanError(f"{FEATURE_SERVICE} has no {kind} view keyed by {key}") from None


def checked(plan: FeaturePlan) -> FeaturePlan:
    """`plan` in the vector's order of features; raise `PlanError` if it lacks one of them, or an entity."""
    expected = [(entity.name, entity.key, (entity.state_feature,)) for entity in ENTITIES]
    if expected != [(entity.name, entity.key, entity.velocity.features) for entity in plan.entities]:
        raise PlanError(f"{FEATURE_SERVICE} should have the entities {', '.join(e.name for e in ENTITIES)}")
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
        self._resolver: Contained | None = None
        self.features = OnlineFeatures(table_plan(chosen.feast.project))
        self.error: str | None = None

    def refresh(self) -> None:
        """Take up a plan that was written since the last look; ask for one if the registry is newer."""
        written = _modified(self._path)
        if written is not None and written != self._seen:
            self._seen = written
            self._take()
        if self._resolver is not None:
            outcome = self._resolver.poll()
            if outcome is None:
                return
            self._resolver = None
            if outcome.ended is not None or outcome.complaints:
                _log.warning(
                    "reading the registry complained",
                    extra={"ended": outcome.ended, "complaints": outcome.complaints},
                )
        now = time.monotonic()
        registry = _modified(self._registry) if self._registry is not None else time.time_ns()
        if registry is not None and (written is None or registry > written) and now - self._asked >= _PAUSE:
            self._asked = now
            self._resolver = _start_resolver(self._home)

    def _take(self) -> None:
        try:
            with self._path.open("rb") as file:
                answer = msgspec.json.decode(file.read(_LARGEST), type=_Resolved)
            features = None if answer.plan is None else OnlineFeatures(checked(answer.plan))
        except (OSError, ValueError, KeyError, OverflowError, RecursionError) as error:
            self.error = f"{self._path.name}: {type(error).__name__}"
            return
        if features is None:
            self.error = answer.error
            _log.error(
                "the registry's features cannot be served, the plan before stays",
                extra={"reason": self.error},
            )
            return
        self.error = None
        if features.plan != self.features.plan:
            self.features = features
            _log.info("took up the registry's feature plan", extra={"service": FEATURE_SERVICE})

    async def close(self) -> None:
        if self._resolver is not None:
            await asyncio.to_thread(self._resolver.stop)


class _Resolved(msgspec.Struct, frozen=True):
    plan: FeaturePlan | None = None
    error: str | None = None


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _start_resolver(home: Path) -> Contained:
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "TOLLGATE_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    command = python("-m", "bentos.features.feature_plan", "--bounded")
    return Contained(command, seconds=_SECONDS, environment=environment, niceness=_BEHIND)


def main(bounded: bool = False) -> int:
    """Resolve and write; several workers that ask at once cause one resolution."""
    if bounded:
        bound_this_process(memory=_MEMORY, seconds=int(_SECONDS))
    path = plan_path(settings().home)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0
        # The moment before reading: a registry that changes meanwhile is newer than the plan.
        begun = time.time_ns()
        from feature_repo.stored_definitions import RegistryError, stored_definitions

        project = settings().feast.project
        try:
            resolved = _Resolved(plan=resolve(stored_definitions(project), project))
        except (PlanError, RegistryError) as error:
            resolved = _Resolved(error=str(error))
        with written_whole(path) as unfinished:
            unfinished.write_bytes(msgspec.json.encode(resolved))
            os.utime(unfinished, ns=(begun, begun))
    features = sum(len(entity.profile.features) for entity in resolved.plan.entities) if resolved.plan else 0
    print(resolved.error or f"{FEATURE_SERVICE}: {features} profile features")
    return 1 if resolved.error else 0


if __name__ == "__main__":
    raise SystemExit(main("--bounded" in sys.argv[1:]))
