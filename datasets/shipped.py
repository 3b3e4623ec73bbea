"""The mappings that come with the platform, by name: `--mapping paysim` needs no path.

Beside each lies a small invented file of the same columns, in `datasets/samples`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

MAPPINGS: Final = Path(__file__).resolve().parent / "mappings"
SAMPLES: Final = MAPPINGS.parent / "samples"


def mapping_path(given: Path) -> Path:
    """The file that `given` names: itself if it exists, else the shipped mapping of that name."""
    if given.exists() or given.parent != Path():
        return given
    shipped = MAPPINGS / f"{given.name.removesuffix('.yaml')}.yaml"
    return shipped if shipped.exists() else given
