"""Whole files written and synced beside the flow, by one thread of their own.

A sync takes milliseconds, in which the flow can do many events. What a snapshot must not lose
it holds itself until the file that is to hold it is on disk.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeVar

#: Files and other work under way at once; more waits for the oldest.
_MOST_UNDER_WAY: Final = 128
_T = TypeVar("_T")


def digest_of(data: bytes) -> bytes:
    """What a snapshot says of a file that it names: BLAKE2b, 16 bytes.

    The snapshot is signed, so this needs no key: nobody finds other bytes that have it.
    """
    return blake2b(data, digest_size=16).digest()


class Disk:
    """Writes files in the order asked; a reader sees each whole or not at all."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._under_way: deque[Future[Any]] = deque()
        self._rests_until = 0.0

    def write(self, path: Path, content: Callable[[], bytes], names: Sequence[Path] = ()) -> Future[None]:
        """Begin to write what `content()` returns to `path`; done once it would survive a power cut.

        With `names` the file gets these names (hard links) in place of `path`. `content` runs in the
        disk's thread. The result raises what went wrong.
        """
        return self.do(partial(_write_whole, path, content, names))

    def do(self, work: Callable[[], _T]) -> Future[_T]:
        """Begin to do `work` in the disk's thread, after all that was asked before."""
        under_way = self._under_way
        while under_way and (under_way[0].done() or len(under_way) >= _MOST_UNDER_WAY):
            under_way.popleft().result()
        begun = self._thread.submit(self._work, work)
        under_way.append(begun)
        return begun

    def _work(self, work: Callable[[], _T]) -> _T:
        while (left := self._rests_until - time.monotonic()) > 0:
            time.sleep(left)
        return work()

    def rest(self, seconds: float) -> None:
        """Begin nothing for so long: the interpreter serves one thread at a time."""
        self._rests_until = time.monotonic() + seconds

    def close(self) -> None:
        """Wait for everything under way, and end the thread."""
        self._thread.shutdown()


def write_synced(path: Path, data: bytes) -> None:
    """Write the whole file `path`; on disk once this returns."""
    _write_whole(path, lambda: data, ())


def _write_whole(path: Path, content: Callable[[], bytes], names: Sequence[Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot hides an unfinished file from Spark and from pyarrow's dataset discovery.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        file.write(content())
        file.flush()
        os.fsync(file.fileno())
    if not names:
        unfinished.replace(path)
        return
    for name in names:
        try:
            name.hardlink_to(unfinished)
        except FileNotFoundError:
            name.parent.mkdir(parents=True, exist_ok=True)
            name.hardlink_to(unfinished)
    unfinished.unlink()
