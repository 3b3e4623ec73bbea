"""Where the rows of batch views lie, and by which declaration a cut was computed."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Final

from fraud.declared.figures import BatchView, digest_of
from stores.declared import declared
from stores.files import written_whole
from stores.settings import settings

PROFILES: Final = "profiles"
#: In a cut's folder: what was computed there. Readers of parquet pass over it.
MARK: Final = "_declared.json"


def view_folder(view: BatchView, cut: datetime) -> Path:
    """Where the rows of `view` as of `cut` lie."""
    return settings().lake / PROFILES / view.folder / f"cut={cut:%Y%m%dT%H%M%S}"


def digest(view: BatchView) -> str:
    """Identifies what `view` computes here."""
    measures = {each.name: each.expression for each in declared().declarations.measures}
    return digest_of(view, measures)


def mark(view: BatchView, folder: Path) -> None:
    """Note that `folder` holds what `view` declares now."""
    with written_whole(folder / MARK) as unfinished:
        unfinished.write_text(json.dumps({"digest": digest(view)}))


def is_computed(view: BatchView, cut: datetime) -> bool:
    """Whether the cut holds what the view declares now."""
    try:
        found = json.loads((view_folder(view, cut) / MARK).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(found.get("digest") == digest(view))


def quarantine_folder(cut: datetime) -> Path:
    """Where a cut goes that a gate has blocked."""
    return settings().home / "quarantine" / f"cut={cut:%Y%m%dT%H%M%S}"


def is_quarantined(cut: datetime) -> bool:
    """Whether a gate has blocked the cut, and nothing has passed since."""
    return quarantine_folder(cut).exists()
