"""Which model versions are in service, and how they change without dropping a request.

`<home>/deployment.json` names them (`key` and `experiment` may be absent, other keys are ignored):

    {"champion": "<version>", "challenger": "<version>" or null, "split": 0.1,
     "shadow": ["<version>"], "key": "customer_id", "experiment": "<name>"}

Without the file, or without a champion in it, the store's newest model is champion. The file
and the store are looked at every second; models are loaded in a thread and swapped between two
batches. A line-up that cannot be loaded leaves the one before in service.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bentos.models.model import Floats, Model, ModelError, model_folder, newest_version
from bentos.models.risk_factors import PathAttribution
from fraud.decision.experiment import Experiment, Variant
from fraud.features.feature_list import VECTOR

_log = logging.getLogger("tollgate.deployment")
FILE: Final = "deployment.json"
_PLACE: Final = {name: index for index, name in enumerate(VECTOR)}


class Deployment(msgspec.Struct, frozen=True):
    """The content of deployment.json; `split` is the share of keys that the challenger decides."""

    champion: str | None = None
    challenger: str | None = None
    split: float = 0.1
    key: str = "customer_id"
    experiment: str = "default"
    shadow: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(Deployment).decode


class Scoring:
    """A model and where its features stand in the vector."""

    def __init__(self, model: Model) -> None:
        unknown = [name for name in model.manifest.features if name not in _PLACE]
        if unknown:
            raise ModelError(f"{model.tag}: wants features that are not served: {', '.join(unknown[:5])}")
        self.model = model
        self.version = model.version
        places = [_PLACE[name] for name in model.manifest.features]
        self.attribution = PathAttribution(model)
        self._columns: npt.NDArray[np.intp] | None = (
            None if places == list(range(len(VECTOR))) else np.array(places, dtype=np.intp)
        )

    def rows(self, matrix: Floats) -> Floats:
        """The model's own columns of rows in VECTOR order."""
        return matrix if self._columns is None else matrix[:, self._columns]

    def score(self, matrix: Floats) -> Floats:
        return self.model.score(self.rows(matrix))


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

    def models(self) -> list[Model]:
        every = [self.champion, self.challenger, *self.shadows]
        return [scoring.model for scoring in every if scoring is not None]


NOBODY: Final = LineUp(None, None, Experiment(), (), 0.0)


def read_deployment(home: Path) -> Deployment | None:
    """What should be in service; None when the store is empty. Raises `ModelError`."""
    path = home / FILE
    try:
        deployment = _decode(path.read_bytes())
    except FileNotFoundError:
        deployment = Deployment()
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{FILE}: {error}") from None
    if deployment.champion is None:
        version = newest_version(home)
        return Deployment(version) if version is not None else None
    return deployment


def line_up(home: Path, deployment: Deployment) -> LineUp:
    """Load every model that `deployment` names, each once; raise `ModelError`, keeping none."""
    loaded: dict[str, Scoring] = {}

    def load(version: str) -> Scoring:
        folder = model_folder(home, version)
        if folder.name not in loaded:
            loaded[folder.name] = Scoring(Model(folder))
        return loaded[folder.name]

    try:
        experiment = Experiment(deployment.experiment, deployment.split, deployment.key)
        champion = load(deployment.champion) if deployment.champion else None
        challenger = load(deployment.challenger) if deployment.challenger else None
        shadows = tuple([load(version) for version in deployment.shadow])
    except (ModelError, ValueError) as error:
        for scoring in loaded.values():
            scoring.model.close()
        raise ModelError(f"{FILE}: {error}") from None
    return LineUp(champion, challenger, experiment, shadows, time.time())


class ModelRoom:
    """Keeps the line-up current. `current` may be replaced between any two awaits."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._seen: object = None
        self.current = NOBODY
        self.error: str | None = None

    def _fingerprint(self) -> object:
        marks: list[tuple[int, int, int] | None] = []
        for path in (self._home / FILE, self._home / "bentoml" / "models" / "tollgate_fraud" / "latest"):
            try:
                stat = path.stat()
                marks.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                marks.append(None)
        return tuple(marks)

    async def refresh(self) -> None:
        """Look for a change and bring it into service; never raises for a model that is broken."""
        fingerprint = self._fingerprint()
        if fingerprint == self._seen:
            return
        self._seen = fingerprint
        try:
            deployment = await asyncio.to_thread(read_deployment, self._home)
            fresh = await asyncio.to_thread(line_up, self._home, deployment) if deployment else NOBODY
        except ModelError as error:
            self.error = str(error)
            _log.error("a line-up was refused, the one before stays", extra={"reason": self.error})
            return
        if fresh is NOBODY and self.current is not NOBODY:
            self.error = "the store is empty now; the models in service stay"
            return
        self.error = None
        old, self.current = self.current, fresh
        for model in {id(model): model for model in old.models()}.values():
            model.close()  # scoring never awaits: no batch is inside it now
        champion = fresh.champion.version if fresh.champion else None
        _log.info("models in service", extra={"champion": champion, "shadows": len(fresh.shadows)})
