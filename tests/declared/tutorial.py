"""The file of the tutorial `docs/your-own-feature.md`, as readers copy it."""

from __future__ import annotations

import re
from pathlib import Path

from stores.settings import REPOSITORY

PAGE = REPOSITORY / "docs" / "your-own-feature.md"


def tutorial_file() -> str:
    """The first block of Python on the page."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found.group(1)


def write_tutorial(folder: Path) -> Path:
    """Put the tutorial's file into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cards.py"
    path.write_text(tutorial_file(), encoding="utf-8")
    return path
