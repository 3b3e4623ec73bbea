"""A program in a process of its own that cannot take more than it was given: a sandbox for resources.

The parent watches the wall clock and kills; the child bounds its own memory, processor time and files
(`bound_this_process`, https://man7.org/linux/man-pages/man2/setrlimit.2.html). It stops what runs away,
crashes or swells. It is no fence against a program that attacks: the process keeps its user's rights.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: Bytes at the end of what a process complained of that are kept.
_MOST_SAID: Final = 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a contained program ended: `ended` is None if by itself with status 0, else says how in words."""

    ended: str | None
    complaints: str


class Contained:
    """A running program. `poll` it or `wait` for it; either kills it once its seconds are over."""

    def __init__(
        self, command: Sequence[str], *, seconds: float, environment: Mapping[str, str], niceness: int = 0
    ) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
                env=dict(environment), process_group=0, close_fds=True,
            )  # fmt: skip
        except OSError:
            self._errors.close()
            raise
        if niceness:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)
        self._outcome: Outcome | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> Outcome | None:
        """How it ended, or None while it runs within its time."""
        if self._outcome is None:
            code = self._process.poll()
            if code is not None:
                self._outcome = self._closed(_in_words(code))
            elif time.monotonic() >= self._deadline:
                self._kill()
                self._outcome = self._closed(f"took longer than {self._seconds:g} seconds")
        return self._outcome

    def wait(self) -> Outcome:
        """Block until it ends, at most its seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, self._deadline - time.monotonic()))
        while (outcome := self.poll()) is None:
            time.sleep(0.01)
        return outcome

    def stop(self) -> None:
        """End it now."""
        if self._outcome is None:
            self._kill()
            self._outcome = self._closed("was stopped")

    def kill(self) -> None:
        """Let it end, from another thread than the one that waits for it."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with whatever it started

    def _kill(self) -> None:
        self.kill()
        self._process.wait()

    def _closed(self, ended: str | None) -> Outcome:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _MOST_SAID))
        said = self._errors.read().decode(errors="replace").strip()
        self._errors.close()
        return Outcome(ended, said)


def _in_words(code: int) -> str | None:
    if code == 0:
        return None
    if code > 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def python(*arguments: str) -> list[str]:
    """The command of this interpreter; a module is looked for in this program only, not where it starts."""
    return [sys.executable, "-P", *arguments]


def bound_this_process(*, memory: int, seconds: int, file_size: int = 16_000_000) -> None:
    """Let this process have so many bytes of memory and of each file, and so many seconds of a processor.

    More memory raises MemoryError (or ends in std::bad_alloc), more of the others in a signal. No core
    is written: it would hold what the process read.
    """
    wanted = (
        # Private writable memory, not address space: numerical libraries reserve much that they never use.
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, most in wanted:
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
