"""How punctually the threads of a flow wake.

Bytewax' main thread looks for signals a thousand times a second, each time with the interpreter's
lock, which it takes from the thread that does the work; the signals that matter here are heard by
another (`streaming.runner`). So the main thread is given a timer slack, Linux' word for how late a
sleeper may wake: it looks when something else wakes the processor anyway, or a few times a second.
To be deleted when Bytewax stops polling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from machine.linux import set_timer_slack

_SELDOM_NS: Final = 50_000_000
#: What Linux gives a process to begin with.
_ON_TIME_NS: Final = 50_000


@contextmanager
def waking_seldom(wanted: bool = True) -> Iterator[None]:
    """Let this thread, and those that begin meanwhile, wake late: `wake_on_time` is for these."""
    if not wanted:
        yield
        return
    set_timer_slack(_SELDOM_NS)
    try:
        yield
    finally:
        set_timer_slack(_ON_TIME_NS)


def wake_on_time() -> None:
    """Let this thread wake when it asked to."""
    set_timer_slack(_ON_TIME_NS)
