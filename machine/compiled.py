"""Functions that numba compiles to machine code once, and keeps for every later process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` as machine code, with numpy's division and Python's everything else.

    What was compiled is kept in the `__pycache__` beside its module, or in the user's cache, and read
    from there in milliseconds. numba compiles anew when the module's file changes; constants of other
    files are part of the code as well, so that their values are part of the name it is kept by. Where
    nothing can be kept, every process compiles for itself, which takes seconds.
    """
    names = function.__globals__
    constants = sorted((name, value) for name, value in names.items() if name.lstrip("_").isupper())
    digest = hashlib.sha256(repr(constants).encode()).hexdigest()[:16]
    function.__qualname__ += f"_{digest}"
    with suppress(RuntimeError):  # no folder to keep it in
        return _jit(function, cache=True)
    return _jit(function, cache=False)


def _jit(function: Function, *, cache: bool) -> Function:
    return cast("Function", numba.njit(cache=cache, error_model="numpy")(function))
