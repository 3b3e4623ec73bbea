"""Processes that work beside a worker: the log's conversion, the reading of Feast's registry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from machine.processors import run_anywhere

#: Their niceness: callers come first. They stay in the worker's session, since Linux' autogroups share the
#: processors out by session before they look at niceness.
_BEHIND: Final = 19
#: Where these packages are, wherever the process starts: a checkout, site-packages, a built Bento.
_PACKAGES: Final = Path(__file__).resolve().parent.parent


def start_beside(
    home: Path, module: str, *arguments: str, quiet: bool = False, behind: bool = True
) -> subprocess.Popen[bytes]:
    """Run `python -m module` for `home`; `quiet` without what it prints as errors, `behind` callers."""
    paths = [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL if quiet else None,
        process_group=0,
        env={**os.environ, "TOLLGATE_HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip
    if behind:
        os.setpriority(os.PRIO_PROCESS, process.pid, _BEHIND)
    run_anywhere(process.pid)
    return process
