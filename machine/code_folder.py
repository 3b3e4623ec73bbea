"""Where machine code is kept between processes.

numba keeps it in the `__pycache__` beside the module, and takes nothing from there unless it could write
there too: in a container with a read-only file system every process would compile for 14 seconds.
So the folder is the first of these that this process may write, and what was kept beside the module when
it was built is copied there:

1. `TOLLGATE_MACHINE_CODE_FOLDER`;
2. `__pycache__` beside the module;
3. the user's cache (`XDG_CACHE_HOME`, `~/.cache`);
4. a folder of this user alone in the system's temporary folder.

What is kept is loaded as a pickle: who can write it can run code here. So a folder that others may write is
passed over.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from numba.core.caching import InTreeCacheLocator

_SETTING: Final = "TOLLGATE_MACHINE_CODE_FOLDER"


class CodeFolder(InTreeCacheLocator):
    """numba's answer to where a function's code is kept; `from_function` is None if it can be nowhere."""

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> CodeFolder | None:
        if not Path(py_file).exists():  # typed at a prompt
            return None
        self = cls(py_func, py_file)
        beside = Path(self._cache_path)
        name: str = cls.get_suitable_cache_subpath(py_file)  # type: ignore[no-untyped-call]
        for root in _candidates(beside):
            folder = root if root == beside else root / name
            if not (_usable(root) and _usable(folder)):
                continue
            if folder != beside:
                _bring(beside, folder, f"{Path(py_file).stem}.{py_func.__qualname__}-")
            self._cache_path = str(folder)
            return self
        return None


def _candidates(beside: Path) -> Iterator[Path]:
    chosen = os.environ.get(_SETTING)
    if chosen:
        yield Path(chosen).absolute()
    yield beside
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    yield Path(cache) / "tollgate-code"
    yield Path(tempfile.gettempdir()) / f"tollgate-code-{os.getuid()}"


def _usable(folder: Path) -> bool:
    """Whether this user may write the folder and nobody else may; it is made if need be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()  # in a folder that everybody may write, a link may be anybody's
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _bring(source: Path, target: Path, name: str) -> None:
    """Copy what `source` keeps under names that begin with `name`: code first, then the index of it."""
    if not source.is_dir():
        return
    kept = [path for path in source.iterdir() if path.name.startswith(name)]
    for path in sorted(kept, key=lambda each: each.suffix == ".nbi"):
        if path.suffix in (".nbi", ".nbc") and not (target / path.name).exists():
            unfinished = target / f".{path.name}.{os.getpid()}"
            shutil.copyfile(path, unfinished)
            unfinished.replace(target / path.name)
