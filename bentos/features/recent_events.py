"""What was decided in the last seconds, which the stream may not have counted yet.

A worker puts each payment into a short list of its card in Redis, in the round trip that reads the
features: what stands in the list before it, from whatever worker, came before it. And it keeps its
own payments for some seconds by customer and card, for when Redis is away. A payment that meets nobody
costs two small commands. Replays are left out: their sender waits for the stream.

An entry is when the payment was known (microseconds UTC, 8 bytes, little-endian), and the record
that velocity states look at (`fraud.state.observation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Final, NamedTuple

from bentos.base.work import Work
from bentos.wire.redis_connection import pack
from bentos.wire.replies import Replies
from fraud.features.entities import ENTITIES, PERSONAL
from fraud.state.observation import RECORD_BYTES, event_record

#: Entities whose payments are laid over their states, by place.
OVERLAID: Final = tuple(place for place, entity in enumerate(ENTITIES) if entity.name in PERSONAL)
CARD: Final = next(place for place, entity in enumerate(ENTITIES) if entity.name == "card")
_FIELDS: Final = tuple(ENTITIES[place].key for place in OVERLAID)
_KNOWN_BYTES: Final = 8
ENTRY_BYTES: Final = _KNOWN_BYTES + RECORD_BYTES
#: Entries that a list is cut to once it has become twice as long.
KEPT: Final = 64
#: The same of a worker's own entries: more than can be under way on one card at once.
_OWN_KEPT: Final = 4 * KEPT
#: Payments that a worker remembers in each of its two generations.
_MOST: Final = 4_096
#: Bytes of Redis's two replies to an entry that is alone in its list.
_ALONE: Final = len(b":%d\r\n$%d\r\n\r\n" % (ENTRY_BYTES, ENTRY_BYTES)) + ENTRY_BYTES


class Entry(NamedTuple):
    """A payment that was known at `known_us`; `identity` is the high half of its `transaction_key`."""

    known_us: int
    identity: int
    record: bytes


class Before(NamedTuple):
    """The entries before a payment: those of its card in Redis, in their order (None: Redis does not say),
    and by overlaid entity those of this worker."""

    shared: bytes | None
    own: tuple[bytes, ...]


_NOTHING: Final = tuple(b"" for _ in OVERLAID)


class Noted(NamedTuple):
    """A batch that was noted: commands for Redis, two a card, the places of each card's payments, and those
    that this worker knows others before."""

    commands: list[bytes]
    cards: dict[str, list[int]]
    met: set[int]


class RecentEvents:
    """The last seconds of one worker. One event loop owns it."""

    def __init__(self, project: str, seconds: int) -> None:
        self._prefix = f"tollgate:recent:{project}:".encode()
        self._seconds = seconds
        self._expiry = b"%d" % seconds
        self._young: tuple[dict[str, bytes], ...] = tuple({} for _ in OVERLAID)
        self._old: tuple[dict[str, bytes], ...] = tuple({} for _ in OVERLAID)
        self._count = 0
        self._since = monotonic()
        self._cuts: dict[str, bytes] = {}
        self._long: list[tuple[dict[str, bytes], str]] = []
        #: By identity when works count that count later than they were noted.
        self.moved_ms: dict[int, int] = {}

    def note(self, batch: Sequence[Work]) -> Noted:
        """Remember `batch`, but for replays; what tells other workers, two commands a card."""
        if not self._seconds:
            return Noted([], {}, set())
        self._tidy(len(batch))
        cards: dict[str, list[int]] = {}
        met: set[int] = set()
        for place, work in enumerate(batch):
            if work.replayed:
                continue
            transaction = work.transaction
            entry = work.entry = _entry(work)
            for young, old, name in zip(self._young, self._old, _FIELDS, strict=True):
                value = getattr(transaction, name)
                before = young.get(value)
                young[value] = entry if before is None else before + entry
                if before is not None or value in old:
                    met.add(place)
            same = cards.get(transaction.card_id)
            if same is None:
                cards[transaction.card_id] = [place]
            else:
                same.append(place)
        commands: list[bytes] = []
        for card, places in cards.items():
            key = self._prefix + card.encode()
            entries = (
                batch[places[0]].entry if len(places) == 1 else b"".join([batch[p].entry for p in places])
            )
            commands += (
                b"*3\r\n$6\r\nAPPEND\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(entries), entries),
                b"*4\r\n$5\r\nGETEX\r\n$%d\r\n%b\r\n$2\r\nEX\r\n$%d\r\n%b\r\n"
                % (len(key), key, len(self._expiry), self._expiry),
            )
        commands += self._cuts.values()
        self._cuts = {}
        return Noted(commands, cards, met)

    def before(self, batch: Sequence[Work], noted: Noted, replies: Replies, first: int) -> dict[int, Before]:
        """Of the places in `batch` of payments that others came before: these. `replies` from `first` on are
        those to the commands of `noted`."""
        cards, last = noted.cards, first + 2 * len(noted.cards)
        alone = len(replies) >= last and replies.begins[last] - replies.begins[first] == _ALONE * len(cards)
        if alone and not noted.met:
            return {}
        lists = [] if alone else replies.objects(first, last)[1::2]
        found = {}
        for number, (card, places) in enumerate(cards.items()):
            told = b"" if alone else self._told(card, lists[number] if number < len(lists) else None)
            for place in places:
                work = batch[place]
                shared = told and _before(told, work.entry)
                own = self._own(work) if place in noted.met else _NOTHING
                if shared or any(own):
                    found[place] = Before(shared, own)
        return found

    def moved(self, work: Work) -> None:
        """The work counts, or was known, later than it was noted: so do those see it that come after it."""
        if not work.entry:
            return
        if len(self.moved_ms) >= _MOST:
            self.moved_ms.clear()
        self.moved_ms[work.identity >> 32] = work.event_ms
        entry = _entry(work)
        for generation in (self._young, self._old):
            for known, name in zip(generation, _FIELDS, strict=True):
                value = getattr(work.transaction, name)
                entries = known.get(value)
                if entries is not None:
                    known[value] = entries.replace(work.entry, entry)
        work.entry = entry

    def _tidy(self, more: int) -> None:
        """Cut what is long; begin a new generation when one is full, or half of the time is over."""
        for known, value in self._long:
            known[value] = known[value][-_OWN_KEPT * ENTRY_BYTES :]
        self._long = []
        self._count += more
        now = monotonic()
        if self._count > _MOST or now - self._since > self._seconds / 2:
            self._old, self._young = self._young, tuple({} for _ in OVERLAID)
            self._count, self._since = more, now

    def _told(self, card: str, told: object) -> bytes | None:
        """A card's list in Redis; None where Redis does not say, or what stands there is none."""
        if not isinstance(told, bytes) or len(told) % ENTRY_BYTES:
            return None
        if len(told) > 2 * KEPT * ENTRY_BYTES:
            # An entry that comes in between is lost to others: after so many it makes no difference.
            key = self._prefix + card.encode()
            self._cuts[card] = pack(b"SET", key, told[-KEPT * ENTRY_BYTES :], b"EX", self._expiry)
        return told

    def _own(self, work: Work) -> tuple[bytes, ...]:
        """This worker's entries before the work's own, by overlaid entity."""
        found = []
        for young, old, name in zip(self._young, self._old, _FIELDS, strict=True):
            value = getattr(work.transaction, name)
            entries, known = young.get(value, b""), young
            at = _find(entries, work.entry)
            if at < 0:  # noted before the generation turned over
                entries, known = old.get(value, b""), old
                at = _find(entries, work.entry)
            elif value in old:
                entries, at = old[value] + entries, at + len(old[value])
            if at > 2 * _OWN_KEPT * ENTRY_BYTES:
                self._long.append((known, value))
            found.append(entries[: max(at, 0)])
        return tuple(found)


def _before(told: bytes, entry: bytes) -> bytes | None:
    at = _find(told, entry)
    return told[:at] if at >= 0 else None


def _find(entries: bytes, entry: bytes) -> int:
    """Where `entry` stands last among `entries`; below 0 if it does not."""
    at = entries.rfind(entry)
    while at % ENTRY_BYTES and at > 0:  # the same bytes by chance, across two entries
        at = entries.rfind(entry, 0, at + ENTRY_BYTES - 1)
    return at


def _entry(work: Work) -> bytes:
    record = event_record(work.transaction, work.event_ms, work.identity, work.amount_reference)
    return work.known_us.to_bytes(_KNOWN_BYTES, "little") + record


def entries_of(data: bytes) -> Iterator[Entry]:
    """The entries in `data`, in order."""
    for at in range(0, len(data), ENTRY_BYTES):
        record = data[at + _KNOWN_BYTES : at + ENTRY_BYTES]
        word = int.from_bytes(record[8:16], "little", signed=True)
        yield Entry(int.from_bytes(data[at : at + _KNOWN_BYTES], "little"), word >> 32, record)
