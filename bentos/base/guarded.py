"""Work that must not end whoever does it: whatever it raises is logged, but for what ends a program.

An extension may raise what is no `Exception`: pyo3's PanicException, a panic of Rust, is a BaseException
(https://pyo3.rs/main/doc/pyo3/panic/struct.panicexception).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

#: What is meant to end a task or the program.
EXITS: Final = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)

_log = logging.getLogger("tollgate.service")


async def guarded(what: str, work: Callable[[], Awaitable[None] | None]) -> None:
    """Do `work`; an error in it is logged by its place, and stops nothing that comes after."""
    try:
        waiting = work()
        if waiting is not None:
            await waiting
    except EXITS:
        raise
    except BaseException:  # noqa: BLE001  # see the module's text
        _log.exception("a periodic task failed", extra={"task": what})
