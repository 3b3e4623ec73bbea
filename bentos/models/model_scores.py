"""The scores of a batch: of each transaction's variant, and of the shadows that decide nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bentos.base.work import Work
from bentos.models.admission import Admission
from bentos.models.deployment import LineUp, ModelRoom, Scoring
from bentos.wire.breaker import CircuitBreaker
from fraud.decision.experiment import Variant
from stores.keys import open_keys
from stores.models import Floats, Limits, ModelError
from stores.run_folder import open_run_folder
from stores.settings import Settings

if TYPE_CHECKING:
    from bentos.models.remote_model import RemoteModel

_log = logging.getLogger("tollgate.scoring")


@dataclass(slots=True)
class Scored:
    """Scores of a batch; `models` names who gave each, `limits` what counts for it by the views that
    arrived, `degraded` why there are none."""

    variants: list[Variant]
    scores: list[float | None]
    models: list[Scoring | None]
    limits: list[Limits | None]
    shadows: list[dict[str, float]]
    degraded: str | None = None


class ModelScores:
    """The models in service behind a breaker; a model server may give the champion's raw scores."""

    def __init__(self, chosen: Settings) -> None:
        trials = open_run_folder(chosen.run) / "trials"
        keys = open_keys(chosen)
        admission = Admission(
            trials,
            None if chosen.serve.unsigned_models == "allow" else keys.seal("models"),
            seconds=chosen.serve.trial_seconds,
            megabytes=chosen.serve.trial_megabytes,
        )
        self.room = ModelRoom(chosen.home, admission, keys)
        self.breaker = CircuitBreaker()
        self._remote: RemoteModel | None = None
        if chosen.remote_model.url is not None:
            from bentos.models.remote_model import RemoteModel

            self._remote = RemoteModel(chosen.remote_model.url, chosen.remote_model.timeout_ms)

    async def ask(self, matrix: Floats, shortfalls: list[str]) -> tuple[str, Floats] | None:
        """The champion's version and its raw scores from the model server, if there is one to ask."""
        champion = self.room.current.champion
        if self._remote is None or champion is None:
            return None
        version = champion.version
        raw = await self._remote.scores(version, champion.rows(matrix))
        if raw is None:
            shortfalls.append("model:local")
            return None
        return version, raw

    def of(
        self,
        batch: Sequence[Work],
        matrix: Floats,
        status: Sequence[Mapping[str, str]],
        remote: tuple[str, Floats] | None = None,
    ) -> Scored:
        """Scores by each transaction's variant, and those of the shadows.

        `status` tells of each row which views arrived. `remote` holds a version with its raw scores, used if
        it is champion still.
        """
        line: LineUp = self.room.current
        variants: list[Variant] = ["champion"] * len(batch)
        if line.challenger is not None:
            key = line.experiment.key
            variants = [line.experiment.variant(getattr(work.transaction, key)) for work in batch]
        nobody: list[None] = [None] * len(batch)
        result = Scored(variants, [*nobody], [*nobody], [*nobody], [{} for _ in batch])
        if line.champion is None:
            result.degraded = "model:none"
            return result
        if not self.breaker.allows():
            result.degraded = "model:breaker_open"
            return result
        try:
            for variant in dict.fromkeys(variants):
                scoring = line.of(variant)
                assert scoring is not None
                places = [place for place, mine in enumerate(variants) if mine == variant]
                rows = matrix if len(places) == len(batch) else matrix[places]
                limits = [scoring.limits.of(status[place], batch[place].transaction) for place in places]
                if remote is not None and variant == "champion" and scoring.version == remote[0]:
                    scores = scoring.calibrated(remote[1][places], limits)
                else:
                    scores = scoring.score(rows, limits)
                if not np.isfinite(scores).all():
                    raise ModelError(f"{scoring.version}: a score is not finite")
                for place, score, mine in zip(places, scores.tolist(), limits, strict=True):
                    result.scores[place] = score
                    result.models[place] = scoring
                    result.limits[place] = mine
        except ModelError as error:
            self.breaker.failed()
            _log.error("a model failed", extra={"reason": str(error)})
            result.scores = [None] * len(batch)
            result.models = [None] * len(batch)
            result.limits = [None] * len(batch)
            result.degraded = "model:failed"
            return result
        self.breaker.succeeded()
        for shadow in line.shadows:
            try:
                limits = [
                    shadow.limits.of(status[place], work.transaction) for place, work in enumerate(batch)
                ]
                for place, score in enumerate(shadow.score(matrix, limits).tolist()):
                    result.shadows[place][shadow.version] = score
            except ModelError as error:
                _log.error("a shadow model failed", extra={"reason": str(error)})
        return result

    async def close(self) -> None:
        await self.room.close()
        if self._remote is not None:
            await self._remote.close()
