"""Which processors a worker and what works beside it run on.

With as many workers as processors, the kernel moves them about and lets two share a processor for a
while, with cold caches each time. There each worker's event loop keeps to a processor of its own. With
fewer workers, or with more, the kernel knows better: the first processors would have all the work of
several services on one machine.
"""

from __future__ import annotations

import fcntl
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from machine.linux import keep_to, processors

#: Those this process was given. (Not every system tells; then nothing is chosen.)
_GIVEN: Final = processors()


class OwnProcessor:
    """A processor that one worker's thread keeps to and no other's, until `close` or the process's end."""

    def __init__(self, number: int, taken: IO[bytes]) -> None:
        self._taken = taken
        keep_to(0, [number])

    def close(self) -> None:
        """Let the calling thread, which must be the worker's, run everywhere again."""
        keep_to(0, _GIVEN)
        self._taken.close()


def own_processor(run: Path, workers: int) -> OwnProcessor | None:
    """A processor for the calling thread that no other of `workers` has; None if there is none for each."""
    if workers < 2 or workers != len(_GIVEN):
        return None
    folder = run / "processors"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for number in _GIVEN:
            taken = (folder / str(number)).open("wb")
            try:
                fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                taken.close()
            else:
                return OwnProcessor(number, taken)
    return None


def run_anywhere(process: int) -> None:
    """Let a process that a worker started run on every processor that the worker was given."""
    keep_to(process, _GIVEN)
