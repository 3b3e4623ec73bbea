"""How punctually the threads of a flow wake.

Bytewax' main thread looks for signals a thousand times a second, each time with the interpreter's
lock, which it takes from the thread that does the work; the signals that matter here are heard by
another (`streaming.runner`). So the main thread is given a timer slack, Linux' word for how late a
sleeper may wake: it looks when something else wakes the processor anyway, or a few times a second.
Elsewhere than on Linux nothing changes.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_PR_SET_TIMERSLACK: Final = 29
_SELDOM_NS: Final = 50_000_000
#: What Linux gives a process to begin with.
_ON_TIME_NS: Final = 50_000


@contextmanager
def waking_seldom() -> Iterator[None]:
    """Let this thread, and those that begin meanwhile, wake late: `wake_on_time` is for these."""
    _set_slack(_SELDOM_NS)
    try:
        yield
    finally:
        _set_slack(_ON_TIME_NS)


def wake_on_time() -> None:
    """Let this thread wake when it asked to."""
    _set_slack(_ON_TIME_NS)


def _set_slack(nanoseconds: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(nanoseconds), 0, 0, 0)
