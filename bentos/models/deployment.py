"""Which model versions are in service, and how they change without dropping a request.

`<home>/deployment.json` names them (`stores.deployment`).

Without the file, or without a champion in it, the store's newest model is champion. The file
and the store are looked at every second; models are tried in a process of their own
(`bentos.models.admission`), loaded in a thread and swapped between two batches. A line-up of which one model
is refused leaves the one before in service.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bentos.models.admission import RETRY_SECONDS, Admission, Unfinished
from bentos.models.by_pattern import ByPattern
from bentos.models.model import Model
from bentos.models.risk_factors import PathAttribution
from fraud.decision.experiment import Experiment, Variant
from stores.declared import served_vector
from stores.deployment import FILE, Deployment, DeploymentError, in_service
from stores.files import marks
from stores.keys import Keys
from stores.model_signature import SIGNATURE
from stores.models import Floats, Limits, ModelError, model_folder, read_model_files, store_folder

_log = logging.getLogger("tollgate.deployment")


class Scoring:
    """A model, where its features stand in the vector, and what counts for rows that lack views."""

    def __init__(self, model: Model, text: bytes) -> None:
        self.model = model
        self.version = model.version
        self.limits = ByPattern(model.manifest.limits, model.manifest.patterns)
        served = served_vector()
        place = {name: index for index, name in enumerate(served)}
        places = [place[name] for name in model.manifest.features]
        self.attribution = PathAttribution(model, text)
        self._columns: npt.NDArray[np.intp] | None = (
            None if places == list(range(len(served))) else np.array(places, dtype=np.intp)
        )

    def rows(self, matrix: Floats) -> Floats:
        """The model's own columns of served rows."""
        return matrix if self._columns is None else matrix[:, self._columns]

    def score(self, matrix: Floats, limits: Sequence[Limits] | None = None) -> Floats:
        """Fraud probabilities of served rows, each by its own `limits` (None: no row lacks a view)."""
        return self.calibrated(self.model.raw(self.rows(matrix)), limits)

    def calibrated(self, raw: Floats, limits: Sequence[Limits] | None = None) -> Floats:
        """Fraud probabilities of raw scores, each by its own `limits`."""
        whole = self.limits.undisturbed
        if limits is None or all(mine is whole for mine in limits):
            return whole.score(raw)
        scores = np.empty(len(raw))
        for one in set(map(id, limits)):
            places = [place for place, mine in enumerate(limits) if id(mine) == one]
            scores[places] = limits[places[0]].score(raw[places])
        return scores


#: What the service says at start and in /readyz while it has no champion.
WITHOUT_MODEL: Final = (
    "there is no model: rules alone decide, and every answer says that it is degraded; train one, or name it "
    "with `tollgate promote champion VERSION` in the home that this service reads"
)


@dataclass(frozen=True, slots=True)
class LineUp:
    """The models in service at one moment."""

    champion: Scoring | None
    challenger: Scoring | None
    experiment: Experiment
    shadows: tuple[Scoring, ...]
    since: float

    def of(self, variant: Variant) -> Scoring | None:
        return self.challenger if variant == "challenger" else self.champion

    def scorings(self) -> list[Scoring]:
        """Everybody in service."""
        every = [self.champion, self.challenger, *self.shadows]
        return [scoring for scoring in every if scoring is not None]

    def models(self) -> list[Model]:
        return [scoring.model for scoring in self.scorings()]


NOBODY: Final = LineUp(None, None, Experiment(), (), 0.0)


def _signatures(home: Path, deployment: Deployment | None) -> list[Path]:
    """Where the signatures of a deployment's models are: a model may be signed after it was refused."""
    if deployment is None:
        return []
    named = (deployment.champion, deployment.challenger, *deployment.shadow)
    return [model_folder(home, version) / SIGNATURE for version in named if version is not None]


def line_up(home: Path, deployment: Deployment, admission: Admission) -> LineUp:
    """Try and load every model that `deployment` names, each once; raise `ModelError`, keeping none."""
    loaded: dict[str, Scoring] = {}

    def load(version: str) -> Scoring:
        folder = model_folder(home, version)
        if folder.name not in loaded:
            loaded[folder.name] = load_model(folder, admission)
        return loaded[folder.name]

    try:
        experiment = Experiment(deployment.experiment, deployment.share, deployment.key)
        champion = load(deployment.champion) if deployment.champion is not None else None
        challenger = load(deployment.challenger) if deployment.challenger is not None else None
        shadows = tuple([load(version) for version in deployment.shadow])
    except (ModelError, ValueError, ArithmeticError, MemoryError) as error:
        for scoring in loaded.values():
            scoring.model.close()
        kind = Unfinished if isinstance(error, Unfinished) else ModelError
        raise kind(f"{FILE}: {error}") from None
    return LineUp(champion, challenger, experiment, shadows, time.time())


def load_model(folder: Path, admission: Admission) -> Scoring:
    """Load a model that was tried as it is loaded; raise `ModelError`."""
    files = read_model_files(folder)
    served = set(served_vector())
    unknown = [name for name in files.manifest.features if name not in served]
    if unknown:
        raise ModelError(f"{folder.name}: wants features that are not served: {', '.join(unknown[:5])[:200]}")
    admission.admit(files)
    model = Model(files)
    try:
        return Scoring(model, files.text)
    except BaseException:
        model.close()
        raise


class ModelRoom:
    """Keeps the line-up current. `current` may be replaced between any two awaits."""

    def __init__(self, home: Path, admission: Admission, keys: Keys | None = None) -> None:
        self._home = home
        self._admission = admission
        self._keys = keys
        self._seen: object = None
        self._again: float | None = None
        self._signatures: list[Path] = []
        self._looking: asyncio.Task[None] | None = None
        self.current = NOBODY
        self.error: str | None = None

    def _watched(self) -> list[Path]:
        latest = store_folder(self._home) / "latest"
        # A key that is retired verifies no model any more.
        return [self._home / FILE, latest, *([self._keys.path] if self._keys is not None else [])]

    def look(self) -> None:
        """`refresh` beside whoever asks: a trial takes seconds."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self.refresh())
            self._looking.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.error = f"cannot be looked at: {type(error).__name__}"
            _log.error("looking for models failed", exc_info=error)

    async def looked(self) -> None:
        """Wait for a look that is under way."""
        if self._looking is not None:
            await asyncio.wait([self._looking])

    async def close(self) -> None:
        self._admission.close()
        await self.looked()

    async def refresh(self) -> None:
        """Look for a change and bring it into service; never raises for a model that is broken."""
        files = marks(self._watched())
        due = self._again is not None and time.monotonic() >= self._again
        if self._seen == (files, marks(self._signatures)) and not due:
            return
        self._again = None
        # As they were before they were read: what changes meanwhile is looked at next time.
        self._seen = (files, marks(self._signatures))
        if self._keys is not None:
            self._keys.refresh()
        try:
            deployment = await asyncio.to_thread(in_service, self._home)
            self._signatures = _signatures(self._home, deployment)
            self._seen = (files, marks(self._signatures))
            fresh = NOBODY
            if deployment is not None:
                fresh = await asyncio.to_thread(line_up, self._home, deployment, self._admission)
        except (ModelError, DeploymentError) as error:
            self.error = str(error)
            if isinstance(error, Unfinished):
                self._again = time.monotonic() + RETRY_SECONDS
            _log.error("a line-up was refused, the one before stays", extra={"reason": self.error})
            return
        if fresh is NOBODY and self.current is not NOBODY:
            self.error = "the store is empty now; the models in service stay"
            return
        self.error = None
        old, self.current = self.current, fresh
        for model in {id(model): model for model in old.models()}.values():
            model.close()  # scoring never awaits: no batch is inside it now
        if fresh.champion is None:
            _log.warning(WITHOUT_MODEL, extra={"shadows": len(fresh.shadows)})
        else:
            more = {"champion": fresh.champion.version, "shadows": len(fresh.shadows)}
            _log.info("models in service", extra=more)
