"""What no reader can use goes aside with its reason, so that those behind it are read.

One line of JSON for each, in `<folder>/aside.jsonl`: when, why, what it is about, and the bytes (base64,
cut at `LONGEST`). The file is bounded: at `MOST_BYTES` it becomes `aside.jsonl.before`, which replaces
the one before. Nothing here raises: it is called where something has gone wrong already.
"""

from __future__ import annotations

import base64
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

_log: Final = logging.getLogger("tollgate.aside")
#: Bytes of one record that are kept, and of all of a folder's before they are moved.
LONGEST: Final = 65_536
MOST_BYTES: Final = 16 << 20
NAME: Final = "aside.jsonl"


def put_aside(folder: Path, reason: str, data: bytes = b"", **about: str) -> None:
    """Keep `data` in `folder` with why it could not be used."""
    line = msgspec.json.encode(
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "reason": reason,
            **about,
            "bytes": len(data),
            "data": base64.b64encode(data[:LONGEST]).decode(),
        }
    )
    path = folder / NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line + b"\n")
            full = os.fstat(descriptor).st_size > MOST_BYTES
        finally:
            os.close(descriptor)
        if full:
            path.replace(path.with_name(NAME + ".before"))
    except OSError as error:
        _log.error("what was put aside could not be kept", extra={"reason": error.strerror})


def asides(folder: Path) -> list[dict[str, str]]:
    """What was put aside in `folder`, oldest first."""
    lines = [
        line
        for name in (NAME + ".before", NAME)
        if (folder / name).is_file()
        for line in (folder / name).read_bytes().splitlines()
    ]
    return [msgspec.json.decode(line) for line in lines]
