"""A page that the workers of one machine share: who holds answers that Redis may not know.

Every worker has a word in it: the time until which it owes Redis answers, 0 for not at all. The
page is read through a mapping (a fraction of a microsecond) and written with `pwrite`, because a
full disk makes that fail, while writing through the mapping would end the process. A worker that
was killed goes on owing until its successor has taken its answers over, or the time is up.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Two workers that chance puts on one word cost a second of the promise at most, at the end of an outage.
_WORDS: Final = struct.Struct("<128Q")
_WORD: Final = struct.Struct("<Q")
_NOBODY: Final = bytes(_WORDS.size)
#: Seconds after which an answer that went to Redis has arrived there, or is known to be late.
_SETTLES: Final = 1.0
#: Nanoseconds of a debt that is not renewed: long enough for a dead worker's successor to start.
_LASTS: Final = 120 * 10**9


class Owing:
    """One worker's view of the page at `path`, and its own word there."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._descriptor).st_size < _WORDS.size:
            os.pwrite(self._descriptor, _NOBODY, 0)
        self._page = mmap.mmap(self._descriptor, _WORDS.size, access=mmap.ACCESS_READ)
        self._place = secrets.randbelow(_WORDS.size // _WORD.size) * _WORD.size
        self._since: float | None = None

    @property
    def anybody(self) -> bool:
        """Whether any worker owes Redis answers."""
        page = self._page[:]
        return page != _NOBODY and max(_WORDS.unpack(page)) > time.time_ns()

    def owe(self) -> None:
        """From now on, and for two minutes unless renewed, this worker owes."""
        self._since = time.monotonic()
        self._write(self._place, time.time_ns() + _LASTS)

    def paid(self) -> None:
        """Nothing is known to be owed: true once nothing new has come up for a while."""
        if self._since is not None and time.monotonic() - self._since > _SETTLES:
            self._since = None
            self._write(self._place, 0)

    def tidy(self) -> None:
        """Forget what workers that are gone for good owed."""
        page = self._page[:]
        if page == _NOBODY:
            return
        now = time.time_ns()
        for place, until in enumerate(_WORDS.unpack(page)):
            # A time beyond what anybody writes is of a clock that was wrong.
            if until and not now < until <= now + _LASTS:
                self._write(place * _WORD.size, 0)

    def _write(self, place: int, until: int) -> None:
        with suppress(OSError):  # tried again in a second
            os.pwrite(self._descriptor, _WORD.pack(until), place)

    def close(self) -> None:
        self._page.close()
        os.close(self._descriptor)
