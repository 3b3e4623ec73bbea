"""Child processes of the embedded platform: started with a log, waited for, ended by their own id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class ProcessFailedError(RuntimeError):
    """A child process ended or did not get ready; the text ends with what it printed last."""


class Child:
    """One running child process whose output goes to a log file.

    It leads its own process group, so that `stop` ends it together with the workers it started.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def tail(self, characters: int = 1500) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-characters:]

    def check(self) -> None:
        """Raise `ProcessFailedError` if the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise ProcessFailedError(f"{self.name} ended with code {code}:\n{self.tail()}")

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready()` holds; raise if the process ends or time runs out first."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailedError(f"{self.name} was not ready after {seconds:.0f} s:\n{self.tail()}")
            time.sleep(0.05)

    def stop(self, seconds: float = 20.0) -> int:
        """Ask the process to end (SIGTERM), end its group after `seconds`; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._signal_group(signal.SIGKILL)
        self._signal_group(signal.SIGKILL)
        return self.process.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


def answers(url: str) -> bool:
    """Whether a GET on `url` is answered with a 2xx within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return 200 <= int(response.status) < 300
    except (urllib.error.URLError, OSError):
        return False


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of the project with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def stop_on_sigterm() -> None:
    """From now on SIGTERM unwinds this command as an interrupt does, so that it ends what it started."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
