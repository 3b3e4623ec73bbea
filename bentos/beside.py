"""Processes that work beside a worker: the log's conversion, the reading of Feast's registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fraud.settings import REPOSITORY

#: Their niceness: callers come first. They stay in the worker's session, since Linux' autogroups share the
#: processors out by session before they look at niceness.
BEHIND: Final = 19


def beside(home: Path) -> dict[str, str]:
    """The environment of a process beside a worker: it finds these packages wherever it starts,
    a built Bento's too."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "TOLLGATE_HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
