"""Effects that wait for a sink which is away: on disk, in order, beyond the life of their worker.

Each is signed: whoever writes the folder could otherwise set any key in Redis through it. What does
not verify, or is no effect, goes to the folder's `aside.jsonl`, and those behind it go out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from stores.aside import put_aside
from stores.files import new_series
from stores.keys import SIGNATURE_BYTES, Seal
from stores.spool import SpoolFile, SpoolFull, orphaned, read_frames, read_part

#: Effects that wait in memory when the disk refuses too, before transactions are refused.
MOST_IN_MEMORY: Final = 50_000
#: Bytes that are read at once: the requests of the moment must not wait for a long backlog.
_PART: Final = 256 << 10


class Effect(Struct, frozen=True, array_like=True):
    """What one decision writes: `answer` under `key`, `customer`'s `event` to `partition` of the log.

    `said` is the answer as it was given, where the topic of predictions gets it too.
    """

    key: bytes
    answer: bytes
    partition: int
    event: bytes
    customer: str = ""
    said: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Effect).decode


class Backlog:
    """One file in `folder`. One event loop owns it.

    To deliver: `part` gives the next effects until `delivered` says that they are out; when there
    are none left, `clear`.
    """

    def __init__(
        self, folder: Path, seal: Seal, unverified: Callable[[str, int], None] = lambda what, number: None
    ) -> None:
        self._folder = folder
        self._seal = seal
        self._unverified = unverified
        self._spool = SpoolFile(folder / f"{new_series()}.open", limit=MOST_IN_MEMORY)
        self._delivered = 0
        self._part_ends = 0

    @property
    def waiting(self) -> int:
        """How many effects wait, on disk or in memory."""
        return self._spool.written + self._spool.held

    @property
    def full(self) -> bool:
        return self._spool.full

    def keep(self, effects: Sequence[Effect]) -> None:
        """Let `effects` wait behind the others. Raises `SpoolFull`, having kept none."""
        self._spool.append(list(map(self._signed, effects)))

    def _signed(self, effect: Effect) -> bytes:
        data = _encode(effect)
        return self._seal.sign(data) + data

    def _effects(self, records: Iterable[bytes]) -> Iterator[Effect]:
        for record in records:
            data = record[SIGNATURE_BYTES:]
            try:
                if not self._seal.verifies(data, record[:SIGNATURE_BYTES]):
                    raise ValueError("no key in force signed it")
                yield _decode(data)
            except ValueError as error:  # msgspec's errors are such
                self._unverified("effect", 1)
                put_aside(self._folder, f"is no effect: {error}", record)

    def retry_disk(self) -> None:
        """Write what waits in memory, if the disk takes it."""
        self._spool.flush()

    def part(self) -> list[Effect]:
        """The next few hundred effects on disk; none when all of them were delivered."""
        while True:
            records, self._part_ends = read_part(self._spool.path, self._delivered, _PART)
            effects = list(self._effects(records))
            if effects or not records:
                return effects
            self._delivered = self._part_ends  # all of these went aside

    def delivered(self) -> None:
        """The effects of the last `part` are out."""
        self._delivered = self._part_ends

    def clear(self) -> None:
        """Forget what is on disk: all of it was delivered."""
        self._spool.truncate()
        self._delivered = self._part_ends = 0

    def adopt(self) -> None:
        """Take over what workers that are gone could not deliver."""
        for path in sorted(self._folder.glob("*.open")):
            if path == self._spool.path or not orphaned(path):
                continue
            effects = list(self._effects(read_frames(path)))
            try:
                kept = not effects or self._spool.append(list(map(self._signed, effects)))
            except SpoolFull:
                return
            if kept:  # on disk; otherwise the old file stays, and delivering twice does no harm
                path.unlink()

    def close(self) -> None:
        """Leave what still waits to the next worker."""
        self._spool.flush()
        self._spool.close(remove=not self.waiting)
