"""Files that other processes read: written whole, named once, watched for a change.

A reader sees the file before or the file after, never half of one, because a file gets its name
only when it is complete (an atomic rename within a folder). `durable` says what a power loss may
cost: without it the newest contents (the file before is there, or an empty one on some file
systems), with it nothing that a writer was told is written. What can be computed again is not durable;
what was acknowledged to somebody, or cannot be computed again, is.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: Readers' patterns do not match it: hidden, and of no type that is looked for.
UNFINISHED: Final = ".unfinished"

#: What tells a change of a file: None while there is none.
Mark = tuple[int, int, int] | None


@contextmanager
def written_whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A name to write to; at the end of the block it becomes `path`, or is gone if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}{UNFINISHED}")
    try:
        yield unfinished
        if durable:
            _sync(unfinished)
        unfinished.replace(path)
        if durable:
            _sync(path.parent)  # the name, too
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Replace the file at `path` by `content` (text as UTF-8)."""
    with written_whole(path, durable=durable) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def new_series() -> str:
    """A name that no other writer has, sorted by when it began: `stamp-pid-hex` (UTC)."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-{secrets.token_hex(3)}"


def mark(path: Path) -> Mark:
    """What tells a change of the file: time, size and the file itself."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def marks(paths: Iterable[Path]) -> list[Mark]:
    return [mark(path) for path in paths]
