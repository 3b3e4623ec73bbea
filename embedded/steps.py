"""Named, timed steps with progress on the terminal, and the memory of all that runs meanwhile."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from machine.linux import tree_memory_mib


class Steps:
    """Runs numbered steps, prints them, and keeps their seconds for the summary."""

    def __init__(self, total: int) -> None:
        self.seconds: list[dict[str, object]] = []
        self._total = total
        self._started = time.monotonic()

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """One step: its title while it runs, its seconds when it ends well."""
        number = len(self.seconds) + 1
        print(f"[{number:2}/{self._total}] {title} ...", flush=True)
        started = time.monotonic()
        yield
        took = time.monotonic() - started
        self.seconds.append({"name": name, "seconds": round(took, 2)})
        print(f"        done in {took:.1f} s", flush=True)

    @property
    def total_seconds(self) -> float:
        return time.monotonic() - self._started


def note(text: str) -> None:
    """A line of detail under the running step."""
    print(f"        {text}", flush=True)


def progress(text: str) -> None:
    """A line that replaces itself on a terminal; in a log it is left out."""
    if sys.stdout.isatty():
        print(f"\r        {text}", end="", flush=True)


class MemoryWatch:
    """The largest resident memory of this process and all its descendants, in MiB."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="memory-watch")

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self.peak_mib = max(self.peak_mib, tree_memory_mib())
