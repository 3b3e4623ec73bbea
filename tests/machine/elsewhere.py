"""Makes this process one of a system that is not Linux: what only Linux has is gone.

`python -m tests.machine.elsewhere MODULE ARGUMENTS...` runs a module there, as `python -m` does. Libraries
keep what they had: they have ways of their own for each system.
"""

from __future__ import annotations

import builtins
import ctypes
import io
import os
import runpy
import sys
import sysconfig
from pathlib import Path
from typing import Any

CALLS = ("sched_getaffinity", "sched_setaffinity", "fdatasync", "posix_fadvise", "posix_fallocate", "eventfd")
#: What the C library of another system lacks, or has another meaning of.
LIBRARY = ("prctl", "madvise", "mincore")
FOLDERS = ("/proc", "/sys")
FILES = (
    (builtins, "open"),
    (io, "open"),
    (os, "stat"),
    (os, "lstat"),
    (os, "scandir"),
    (os, "listdir"),
    (os, "readlink"),
)
_PROJECT = str(Path(__file__).resolve().parents[2])
_STANDARD = sysconfig.get_paths()["stdlib"]


class _Library(ctypes.CDLL):
    def __getattr__(self, name: str) -> Any:
        if name in LIBRARY and self._name is None:
            raise AttributeError(name)
        return super().__getattr__(name)


def _ours() -> bool:
    """Whether the project asks, itself or through the standard library."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_STANDARD, "<frozen")) or "site-packages" in name:
            return name.startswith(_PROJECT) and "site-packages" not in name
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _refusing(call: Any) -> Any:
    def refused(path: Any = ".", *arguments: Any, **named: Any) -> Any:
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(FOLDERS) and _ours():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return call(path, *arguments, **named)

    return refused


def leave_linux() -> None:
    """From now on, in this process."""
    for name in CALLS:
        if hasattr(os, name):
            delattr(os, name)
    ctypes.CDLL = _Library  # type: ignore[misc]
    for module, name in FILES:
        setattr(module, name, _refusing(getattr(module, name)))


if __name__ == "__main__":
    leave_linux()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
