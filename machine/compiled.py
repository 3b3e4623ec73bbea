"""Functions that numba compiles to machine code once, and keeps for every later process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

#: Where numba asks for the folder that a function's code is kept in.
_KEPT: Final = "machine.code_folder.CodeFolder"
_functions: Final[list[Any]] = []


def compiled(function: Function) -> Function:
    """`function` as machine code, with numpy's division and Python's everything else.

    What was compiled is kept (`machine.code_folder`) and read in milliseconds. numba compiles anew when the
    module's file changes; constants of other files are part of the code as well, so that their values
    are part of the name it is kept by. Where nothing can be kept, every process compiles for
    itself, which takes seconds.
    """
    names = function.__globals__
    constants = [(name, value) for name, value in names.items() if name.lstrip("_").isupper()]
    # Compiled functions of other modules are part of the code as well, and so are their constants.
    constants += [
        (name, each.py_func.__qualname__) for name, each in names.items() if hasattr(each, "py_func")
    ]
    constants.sort(key=lambda one: one[0])
    digest = hashlib.sha256(repr(constants).encode()).hexdigest()[:16]
    function.__qualname__ += f"_{digest}"
    with suppress(RuntimeError):  # no folder to keep it in
        return _jit(function, cache=True)
    return _jit(function, cache=False)


def signatures() -> dict[str, int]:
    """Of each compiled function that this process has loaded, for how many kinds of arguments there is code.

    One more than before means that somebody has just waited for the compiler.
    """
    return {
        f"{each.py_func.__module__}.{each.py_func.__qualname__.rsplit('_', 1)[0]}": len(each.signatures)
        for each in _functions
    }


def _jit(function: Function, *, cache: bool) -> Function:
    with _our_folder():
        made = numba.njit(cache=cache, error_model="numpy")(function)
    _functions.append(made)
    return cast("Function", made)


@contextmanager
def _our_folder() -> Iterator[None]:
    config: Any = numba.config  # its names come from a table
    before = config.CACHE_LOCATOR_CLASSES
    config.CACHE_LOCATOR_CLASSES = _KEPT
    try:
        yield
    finally:
        config.CACHE_LOCATOR_CLASSES = before
