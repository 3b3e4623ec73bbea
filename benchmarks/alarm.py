"""An alarm that wakes an event loop to the microsecond.

Timers of asyncio and uvloop know whole milliseconds: a generator that counts from the intended send
time would count up to one of its own lateness as the service's.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from typing import Final

_CLOCK_MONOTONIC: Final = 1  # which time.perf_counter reads
_TIMER_ABSTIME: Final = 1


class _Span(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Span), ("value", _Span))


class Alarm:
    """One alarm of the running event loop (Linux' timerfd). Raises OSError where there is none to have."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "no timer to be had")
        self._loop = asyncio.get_running_loop()
        self._rings: asyncio.Future[None] | None = None
        self._loop.add_reader(self._file, self._ring)

    async def at(self, when: float) -> None:
        """Wait until `time.perf_counter()` is `when`; at least until the loop has looked around."""
        self._rings = self._loop.create_future()
        seconds, fraction = divmod(max(when, 0.000_001), 1)
        timer = _Timer(_Span(0, 0), _Span(int(seconds), int(fraction * 1e9)))
        self._libc.timerfd_settime(self._file, _TIMER_ABSTIME, ctypes.byref(timer), None)
        await self._rings

    def close(self) -> None:
        self._loop.remove_reader(self._file)
        os.close(self._file)

    def _ring(self) -> None:
        os.read(self._file, 8)
        if self._rings is not None and not self._rings.done():
            self._rings.set_result(None)
