"""A model's trial: loaded and asked, in a process that may crash, hang or swell without harm to requests.

`python -m bentos.models.trial FOLDER DIGEST MEGABYTES SECONDS` ends with status 0, or says why not in the
last line of its errors. The text is checked first (`stores.model_text`); what LightGBM does with it all the
same ends this process and no other. `bentos.models.admission` runs it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import numpy as np

from bentos.models.model import Model
from bentos.models.risk_factors import PathAttribution
from machine.contained import bound_this_process
from stores.model_text import ModelTextError, read_trees
from stores.models import Floats, ModelError, read_model_files

#: Seconds that a batch of `_BATCH` rows may take: a larger model would stop the event loop for as long.
_SLOWEST: Final = 0.5
_BATCH: Final = 32
_TURNS: Final = 5


def reference_rows(width: int) -> Floats:
    """Rows as they come and as they do not: plain ones, all missing, nothing, the largest, the infinite."""
    random = np.random.default_rng(20180401)
    plain = random.lognormal(2, 3, size=(2 * _BATCH, width)) * random.choice((-1.0, 1.0), size=(1, width))
    plain[random.random(plain.shape) < 0.3] = np.nan
    edges = [np.full((1, width), value) for value in (np.nan, 0.0, 1e308, -1e308, np.inf, -np.inf, 1e-308)]
    return np.concatenate((plain, *edges))


def try_model(folder: Path, digest: str) -> None:
    """Load the model of `digest` (of its files) and score with it; raise `ModelError`."""
    files = read_model_files(folder)
    if files.digest != digest:
        raise ModelError(f"{folder.name}: its files changed while they were looked at")
    width = len(files.manifest.features)
    try:
        for _ in read_trees(files.text, width):
            pass
    except ModelTextError as error:
        raise ModelError(f"{folder.name}: model.txt {error}") from None
    model = Model(files)
    rows = reference_rows(width)
    scores = model.score(rows)
    if scores.shape != (len(rows),) or not ((scores >= 0) & (scores <= 1)).all():
        raise ModelError(
            f"{folder.name}: {len(rows)} rows went in, and not as many scores from 0 to 1 came out"
        )
    for place in range(0, len(rows), 7):
        if not np.array_equal(model.score(rows[place : place + 1]), scores[place : place + 1]):
            raise ModelError(f"{folder.name}: a row scores differently alone")
    attribution = PathAttribution(model, files.text)
    for row in rows:
        if not np.isfinite(attribution.of(row[None])).all():
            raise ModelError(f"{folder.name}: a row's risk factors are not finite")
    if (took := _seconds_a_batch(model, rows)) > _SLOWEST:
        raise ModelError(f"{folder.name}: {_BATCH} rows take it {took:.1f} s, more than {_SLOWEST:g}")


def _seconds_a_batch(model: Model, rows: Floats) -> float:
    best = float("inf")
    for _ in range(_TURNS):
        begun = time.perf_counter()
        model.score(rows[:_BATCH])
        best = min(best, time.perf_counter() - begun)
    return best


def main(folder: str, digest: str, megabytes: str, seconds: str) -> int:
    bound_this_process(memory=int(megabytes) * 1_000_000, seconds=int(seconds))
    try:
        try_model(Path(folder), digest)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    except MemoryError:
        print(f"{Path(folder).name}: takes more than {megabytes} MB of memory", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
