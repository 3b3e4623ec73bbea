"""The answers of all workers of one machine, for each of them, for when Redis cannot tell.

While Redis answers, its claims keep two workers from deciding one transaction id twice, and all
that happens here is that every worker appends its answers to a file of its own, which nobody
reads: one write a batch into the page cache, before the answers leave. (Keeping them for a write
every ten milliseconds kept their requests in memory as well, which cost a worker more than the
writes do.) A worker that gets no claim takes the machine's turn (a lock), reads what the others
have appended, decides only what none of them has decided, and appends that before it gives the
turn back.

That goes on until Redis knows all answers that were given without it (`bentos.once.owing`): until
then a claim proves nothing. What is left: what is still being decided under a claim when Redis
goes away is not seen.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bentos.base.metrics import Metrics
from bentos.base.work import Work
from bentos.once.claims import REMEMBERED_SECONDS, read_value
from bentos.once.memory import Memory
from bentos.once.owing import Owing
from bentos.wire.breaker import CircuitBreaker
from stores.files import new_series
from stores.keys import Seal
from stores.spool import SpoolFile, SpoolFull, orphaned, read_part

#: Answers that the files of all workers keep at least, together; and the most in one's memory.
_NEWEST: Final = 20_000
_KNOWN: Final = 3 * _NEWEST
#: Bytes read at once: the requests of the moment must not wait for a long file.
_PART: Final = 128 << 10
#: Waiting for the turn, which lasts as long as one batch takes to be decided and written.
_TURN_SECONDS: Final = 0.25
_TURN_PAUSE: Final = 0.0005
#: Seconds without an outage after which the others' answers are dropped from memory.
_FORGET: Final = 60.0
_SUFFIX: Final = ".answers"

Known = tuple[bytes, bytes]  # digest of the request, the answer's JSON


_log = logging.getLogger("tollgate.scoring")


def open_shared(run: Path, workers: int, seal: Seal, metrics: Metrics) -> SharedAnswers | None:
    """None for a worker that is alone, whose memory is enough, and where the disk has no room."""
    if workers == 1:
        return None
    try:
        return SharedAnswers(run, workers, seal, metrics)
    except OSError as error:
        _log.error("workers cannot share their answers", extra={"reason": error.strerror})
        return None


class SharedAnswers:
    """One worker's file, and its view of the others' in `<run>/answers`. One event loop owns it."""

    def __init__(self, run: Path, workers: int, seal: Seal, metrics: Metrics) -> None:
        self._seal = seal
        self._metrics = metrics
        self._folder = run / "answers"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._series = new_series()
        self._part = 0
        self._most = _NEWEST // workers
        self._files = deque([self._open()])
        self._turn = os.open(self._folder / "turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Somebody who never gives the turn back (a stopped process) must not cost every batch the wait.
        self._breaker = CircuitBreaker(failures=1)
        self.owing = Owing(self._folder / "owing")
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._read_until: dict[str, int] = {}
        self._needed_at = 0.0
        self._clear_away(2 * workers)  # workers that are gone leave two files each

    def _clear_away(self, most: int) -> None:
        """Of the files without a writer only the newest stay, for a day at most."""
        aged = sorted(
            (path.stat().st_mtime, path) for path in self._folder.glob("*" + _SUFFIX) if orphaned(path)
        )
        long_ago = time.time() - REMEMBERED_SECONDS
        for place, (written_at, path) in enumerate(aged, most - len(aged)):
            if place < 0 or written_at < long_ago:
                path.unlink(missing_ok=True)

    def _open(self) -> SpoolFile:
        return SpoolFile(self._folder / f"{self._series}-{self._part:08d}{_SUFFIX}", limit=1000)

    # -- while Redis is well ---------------------------------------------------------------

    def publish(self, works: Sequence[Work], values: Sequence[bytes]) -> None:
        """Let the other workers know what Redis is to remember, before any of these answers leaves."""
        records = [
            b"".join((len(work.key).to_bytes(2, "little"), work.key, value))
            for work, value in zip(works, values, strict=True)
        ]
        file = self._files[-1]
        # A disk that is full for long shows elsewhere; then a worker knows its own answers only.
        with suppress(SpoolFull):
            file.append(records)
        if file.written >= self._most:
            self._rotate()

    def _rotate(self) -> None:
        """Begin a new file; of the old ones, the newest stays."""
        self._part += 1
        try:
            self._files.append(self._open())
        except OSError:  # no room even for a name: the old one grows
            self._part -= 1
            return
        if len(self._files) > 2:
            self._files.popleft().close(remove=True)

    def tick(self, owes: bool) -> None:
        """Once a second; `owes`: whether answers of this worker still wait for Redis."""
        self._files[-1].flush()
        if owes:
            self.owing.owe()
        else:
            self.owing.paid()
        self.owing.tidy()
        if self._known and time.monotonic() - self._needed_at > _FORGET:
            self._known.clear()
            self._read_until.clear()

    def close(self, owes: bool) -> None:
        """Leave the answers to the next worker, and the debt with them."""
        if owes:
            self.owing.owe()
        self.owing.close()
        for file in self._files:
            file.flush()
            file.close(remove=not file.written)
        os.close(self._turn)

    # -- while it is not -------------------------------------------------------------------

    def undecided(self, batch: Sequence[Work], memory: Memory) -> list[int]:
        """The places of what no other worker has decided; the rest is answered or refused."""
        places = []
        for place, work in enumerate(batch):
            known = self._known.get(work.key)
            if known is None:
                places.append(place)
                continue
            outcome = work.repeat(*known)
            self._metrics.count("repeated_total", outcome)
            if outcome == "answered":
                memory.remember(work.transaction.transaction_id, *known)
        return places

    async def catch_up(self) -> None:
        """Read what the others have appended, with pauses for the requests of the moment."""
        for _ in self._read():
            await asyncio.sleep(0)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Decide and publish within: no other worker does meanwhile, and what they did is known.

        False when the turn could not be had in time.
        """
        for _ in self._read():
            pass
        mine = self._take_turn()
        try:
            for _ in self._read():  # what was appended while waiting
                pass
            yield mine
        finally:
            if mine:
                fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _take_turn(self) -> bool:
        if not self._breaker.allows():
            return False
        until = time.monotonic() + _TURN_SECONDS
        while True:
            try:
                fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    self._breaker.failed()
                    return False
                time.sleep(_TURN_PAUSE)
            else:
                self._breaker.succeeded()
                return True

    def _read(self) -> Iterator[None]:
        """Read the others' files on, a part at each step; the newest last."""
        self._needed_at = time.monotonic()
        known = self._known
        for path, size in self._others():
            while self._read_until.get(path, 0) < size:
                records = self._part_of(path)
                if not records:  # a torn end, or a file that is gone
                    break
                known.update(filter(None, map(self._entry, records)))
                while len(known) > _KNOWN:
                    known.popitem(last=False)
                yield

    def _others(self) -> list[tuple[str, int]]:
        """Path and size of the other workers' files, by the time of their last answer."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith(self._series):
                    with suppress(FileNotFoundError):
                        seen = entry.stat()
                        found.append((seen.st_mtime_ns, entry.path, seen.st_size))
        self._read_until = {path: self._read_until[path] for _, path, _ in found if path in self._read_until}
        return [(path, size) for _, path, size in sorted(found)]

    def _part_of(self, path: str) -> list[bytes]:
        try:
            records, self._read_until[path] = read_part(Path(path), self._read_until.get(path, 0), _PART)
        except FileNotFoundError:  # its worker has begun another one, and another one
            return []
        return records

    def _entry(self, record: bytes) -> tuple[bytes, Known] | None:
        """The key and what stands in a record; None where that does not verify."""
        end = 2 + int.from_bytes(record[:2], "little")
        key = record[2:end]
        stored = read_value(self._seal, key, record[end:])
        if stored is None or not stored.answered:
            self._metrics.count("unverified_total", "sibling")
            return None
        return key, (stored.digest, stored.rest)
