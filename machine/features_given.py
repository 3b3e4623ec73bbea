"""The document of declared features that this process was started with: found before any setting is read.

The core's tables and compiled loops are made from what is declared, when they are imported; so the document
is looked for where `stores.settings` would find it, by the environment alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_CODE: Final = Path(__file__).resolve().parent.parent
_HERE: Final = _CODE if (_CODE / "pyproject.toml").exists() else Path.cwd()


def document_path() -> Path:
    """Where the document is if there is one: `TOLLGATE_FEATURE_PLAN`, or in the home folder."""
    given = os.environ.get("TOLLGATE_FEATURE_PLAN")
    if given:
        return Path(given)
    return Path(os.environ.get("TOLLGATE_HOME") or _HERE / ".tollgate") / "features" / "declared.json"


def given_document() -> bytes | None:
    """What `feast apply` wrote; None where nothing was applied, or nothing may be read."""
    try:
        return document_path().read_bytes()
    except OSError:
        return None
