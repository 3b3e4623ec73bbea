"""Heads of the decision log's chains, put out every minute where the log is not stored.

A chain shows what was altered or removed inside of it, not that its end, or all of it, is gone. So
each worker writes how long its series is and the code of its last entry to places elsewhere
(`bentos.log.head_places`: a folder of another disk or host, a stream of another Redis, a Kafka topic), and
to its log, which a collector takes away. `python -m bentos.tools.audit --heads` holds the log against them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from bentos.log.head_places import HeadPlace, read_lines
from stores.keys import Seal
from stores.settings import Settings

_log = logging.getLogger("tollgate.audit")
#: Seconds between two heads of a series that grows.
EVERY_S: Final = 60.0
#: Seconds until all places are tried again when one of several did not take a head: the others got theirs.
_AGAIN_S: Final = 10.0


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

    def __init__(self, places: Sequence[HeadPlace], seal: Seal) -> None:
        self._places = places
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
        line, failed = _encode(head), False
        for place in self._places:
            try:
                place.put(series, line)
            except OSError as error:
                failed = True
                if self._late_since is None:
                    _log.error(
                        "a head could not be put out",
                        extra={"place": type(place).__name__, "reason": error.strerror},
                    )
        if failed:
            self._late_since = self._late_since or now
            self._due = now + (_AGAIN_S if len(self._places) > 1 else 0.0)
            return
        self._late_since = None
        self._entries, self._due = entries, now + EVERY_S


def read_heads(place: Path | str, seal: Seal, problems: list[str], chosen: Settings) -> Iterator[Head]:
    """The heads in a place (`head_places.read_lines`). What does not verify becomes a problem."""
    for where, line, every in read_lines(str(place), chosen):
        head = _head(line)
        if head is None:
            if every:
                problems.append(f"{where}: is no head")
        elif not seal.verifies(_signed(head), _bytes(head.signature)):
            problems.append(f"{where}: a head that no key of the keyring signed")
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
