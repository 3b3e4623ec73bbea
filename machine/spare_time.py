"""Work that can wait: it begins while a processor is idle, and after a while in any case."""

from __future__ import annotations

import time
from typing import Final

from machine.linux import idle_seconds

#: Processors that have to be idle, of late, all together.
ENOUGH: Final = 0.25


class Patience:
    """Whether work that can wait may begin. Ask every second or so; what is asked is how idle the
    processors were since the last time. Where the system does not tell, it may begin at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = self._asked = time.monotonic()
        self._idle = idle_seconds()

    def over(self) -> bool:
        """True if a processor is idle, or if it was False for so many `seconds`."""
        now, idle = time.monotonic(), idle_seconds()
        spare = (idle - self._idle) / max(now - self._asked, 1e-9)
        self._asked, self._idle = now, idle
        if enough(spare, now - self._began, self._seconds):
            self._began = now
            return True
        return False


def enough(spare: float, waited: float, patience: float) -> bool:
    """Whether to begin, with so many idle processors, after so many seconds of at most `patience`."""
    return spare >= ENOUGH or waited >= patience
