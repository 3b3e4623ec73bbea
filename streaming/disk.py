"""Whole files written and synced beside the flow, by one thread of their own.

A sync takes milliseconds, in which the flow can do many events. What a snapshot must not lose
it holds itself until the file that is to hold it is on disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

#: Files under way at once; another one waits for the oldest.
_MOST_UNDER_WAY: Final = 128


class Disk:
    """Writes files in the order asked; a reader sees each whole or not at all."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._under_way: deque[Future[None]] = deque()

    def write(self, path: Path, content: Callable[[], bytes]) -> Future[None]:
        """Begin to write what `content()` returns to `path`; done once it would survive a power cut.

        `content` runs in the disk's thread. The result raises what went wrong.
        """
        under_way = self._under_way
        while under_way and (under_way[0].done() or len(under_way) >= _MOST_UNDER_WAY):
            under_way.popleft().result()
        writing = self._thread.submit(_write_whole, path, content)
        under_way.append(writing)
        return writing

    def close(self) -> None:
        """Wait for everything under way, and end the thread."""
        self._thread.shutdown()


def _write_whole(path: Path, content: Callable[[], bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot hides an unfinished file from Spark and from pyarrow's dataset discovery.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        file.write(content())
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
