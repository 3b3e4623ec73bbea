"""A worker that is asked to stop: it says that it is not ready, lets callers go, and only then ends.

A kept-alive connection that is closed while its caller sends the next request reads as a reset, and the
caller does not know whether he was heard. So for some seconds every answer carries ``connection: close``
(a load balancer sees `/readyz` fail meanwhile); what is left after that is idle.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType

_log = logging.getLogger("tollgate.departure")


def depart_slowly(seconds: float, begin: Callable[[], None]) -> None:
    """Call `begin` at the first SIGTERM, and hand it on to whoever handled it before after `seconds`; at once
    if it comes again. Called within the event loop, once the server has its own handler in place."""
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or not seconds or threading.current_thread() is not threading.main_thread():
        return
    handler: Callable[[int, FrameType | None], object] = before
    loop = asyncio.get_running_loop()
    asked = False

    def end() -> None:
        handler(signal.SIGTERM, None)

    def leave() -> None:
        _log.info("asked to stop: callers are let go for %.1f s", seconds)
        begin()
        loop.call_later(seconds, end)

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            handler(number, frame)
            return
        asked = True
        loop.call_soon_threadsafe(leave)

    signal.signal(signal.SIGTERM, on_signal)
