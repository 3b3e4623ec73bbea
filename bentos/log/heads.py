"""Heads of the decision log's chains, put out every minute where the log is not stored.

A chain shows what was altered or removed inside of it, not that its end, or all of it, is gone. So
each worker writes how long its series is and the code of its last entry to a folder elsewhere
(`TOLLGATE_SERVE_HEADS`: another disk, another host's share, a bucket that keeps what it got), and to
its log, which a collector takes away. `python -m bentos.tools.audit --heads` holds the log against them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from stores.keys import Seal

_log = logging.getLogger("tollgate.audit")
#: Seconds between two heads of a series that grows.
EVERY_S: Final = 60.0
_SUFFIX: Final = ".heads.jsonl"


class Head(Struct, frozen=True):
    """A series had so many `entries` at `at` (UTC), the last of which has the code `hash`; `signature` of a
    key in force covers all of it."""

    series: str
    entries: int
    hash: str
    at: str
    signature: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Head).decode


def _signed(head: Head) -> bytes:
    return msgspec.msgpack.encode(("head", head.series, head.entries, head.hash, head.at))


class Heads:
    """Puts out the heads of one series. `put_out` may block: call it from a thread."""

    def __init__(self, folder: Path | None, seal: Seal, home: Path) -> None:
        if folder is not None and folder.resolve().is_relative_to(home.resolve()):
            raise ValueError(
                f"TOLLGATE_SERVE_HEADS: {folder} lies in TOLLGATE_HOME beside the log it is to prove; name a "
                "folder elsewhere"
            )
        self._folder = folder
        self._seal = seal
        self._entries = 0
        self._due = time.monotonic() + EVERY_S
        #: Since when there is something to put out that could not be.
        self._late_since: float | None = None

    @property
    def late(self) -> float:
        """Seconds since heads can no longer be put out; 0 while they can."""
        return time.monotonic() - self._late_since if self._late_since is not None else 0.0

    def put_out(self, series: str, entries: int, code: bytes, *, last: bool = False) -> None:
        """Write the head of `series`, if it has grown and a minute is over (or it is the `last`)."""
        now = time.monotonic()
        if entries == self._entries or (now < self._due and not last):
            return
        head = Head(series, entries, code.hex(), datetime.now(UTC).isoformat(timespec="seconds"))
        head = msgspec.structs.replace(head, signature=self._seal.sign(_signed(head)).hex())
        _log.info("head of the decision log", extra={"head": msgspec.to_builtins(head)})
        try:
            if self._folder is not None:
                _append(self._folder / (series + _SUFFIX), _encode(head) + b"\n")
        except OSError as error:
            if self._late_since is None:
                self._late_since = now
                _log.error("a head could not be put out", extra={"reason": error.strerror})
            return
        self._late_since = None
        self._entries, self._due = entries, now + EVERY_S


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_heads(place: Path, seal: Seal, problems: list[str]) -> Iterator[Head]:
    """The heads in a folder, or in a file: lines of its own, or a service's collected log. What does not
    verify becomes a problem."""
    for path in sorted(place.glob("*" + _SUFFIX)) if place.is_dir() else [place]:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            head = _head(line)
            if head is None:
                if path.name.endswith(_SUFFIX):
                    problems.append(f"{path.name}:{number}: is no head")
            elif not seal.verifies(_signed(head), _bytes(head.signature)):
                problems.append(f"{path.name}:{number}: a head that no key of the keyring signed")
            else:
                yield head


def _head(line: bytes) -> Head | None:
    """The head in a line, of a folder's file or of a log; None if there is none."""
    try:
        found = msgspec.json.decode(line)
        if isinstance(found, dict) and "head" in found:
            found = found["head"]
        return msgspec.convert(found, Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
