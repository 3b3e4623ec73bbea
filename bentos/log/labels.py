"""Labels from issuers, analysts and others: on disk before they are acknowledged, then in the lake.

A label is stamped with when it became known (`known_at`, the receiver's clock unless the sender
says when it learnt of it), because training must not know it earlier, and with the client that sent it.
`bentos.log.label_files` brings them into the lake once their transactions are known there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from bentos.base.caller import LONGEST_ID, SEPARATOR
from fraud.contract.canonical import refuse_repeated_keys
from fraud.contract.cards import looks_like_card_number, redact
from fraud.contract.transaction import ContractError, TransactionId, canonical_id, canonical_time
from stores.files import new_series
from stores.spool import SpoolFile, SpoolFull

LARGEST_BATCH: Final = 1000
SEGMENT_SECONDS: Final = 5.0


#: What a client may report; which of them is in the tokens file. Their strengths: `stores.labels`.
Source = Literal["chargeback", "issuer", "analyst", "customer", "automatic"]
SOURCES: Final[frozenset[str]] = frozenset(get_args(Source))
#: Event times from here on, as in the contract; known-at within an hour for all but administrators.
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST_AHEAD: Final = timedelta(minutes=5)
KNOWN_WITHIN: Final = timedelta(hours=1)
#: File of how many labels wait for their transaction, and how many went aside.
SUMMARY: Final = "waiting.json"


class Label(Struct, frozen=True, forbid_unknown_fields=True):
    """One report. `event_time` is the transaction's; times carry offsets.

    `known_at` is when the report became known to its sender, and may not precede the event; `reason` is the
    sender's code, such as a card network's of a chargeback.
    """

    transaction_id: TransactionId
    event_time: Annotated[datetime, Meta(tz=True)]
    is_fraud: bool
    source: Source
    known_at: Annotated[datetime, Meta(tz=True)] | None = None
    reason: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}\Z")] | None = None


class KeptLabel(Struct, frozen=True):
    """A label as it is kept: times in UTC, and the client that sent it.

    `known_at` is never ahead of the receiver's clock; the transaction's may have been ahead of it a little.
    """

    transaction_id: str
    event_time: datetime
    is_fraud: bool
    source: str
    known_at: datetime
    client: str
    reason: str | None = None


class Summary(Struct, frozen=True):
    """How many labels wait for their transaction, and how many went aside."""

    waiting: int = 0
    aside: int = 0


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who sends labels: the sources that he may name, and whether he may say what he knew long ago.

    `spend` is told how many labels come, and raises `Problem` above the reporter's rate. `ids` is the id
    space of the transactions that he reports on (`bentos.base.caller`).
    """

    name: str
    sources: frozenset[str] = SOURCES
    admin: bool = False
    spend: Callable[[int], None] = lambda number: None
    ids: str = ""


_EXPECTED: Final = {
    "transaction_id": "a string of 1 to 64 characters",
    "event_time": "the transaction's RFC 3339 time with an offset",
    "is_fraud": "true or false",
    "source": "one of " + ", ".join(sorted(SOURCES)),
    "known_at": "an RFC 3339 time with an offset, or absent",
    "reason": "a code of 1 to 64 letters, digits and . _ : / -, or absent",
}
_decode = msgspec.json.Decoder(list[Label] | Label).decode
_encode = msgspec.json.Encoder().encode


def parse_labels(raw: bytes, now: datetime, reporter: Reporter) -> list[KeptLabel]:
    """One label or a list of up to `LARGEST_BATCH`, each stamped; raise `ContractError`.

    `now` (UTC) is the receiver's clock.
    """
    try:
        decoded = _decode(raw)
        refuse_repeated_keys(raw)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ContractError("(body)", "is not valid JSON") from None
    labels = decoded if isinstance(decoded, list) else [decoded]
    if not 1 <= len(labels) <= LARGEST_BATCH:
        raise ContractError("(body)", f"should hold 1 to {LARGEST_BATCH} labels")
    return [_stamped(label, now, reporter) for label in labels]


def _stamped(label: Label, now: datetime, reporter: Reporter) -> KeptLabel:
    name = canonical_id(label.transaction_id)
    if label.source not in reporter.sources:
        raise ContractError("source", f"{label.source} is not a source of this client")
    event = canonical_time(utc(label.event_time, "event_time"))
    known = now if label.known_at is None else utc(label.known_at, "known_at")
    if not EARLIEST <= event <= now + LATEST_AHEAD:
        raise ContractError("event_time", f"should lie between {EARLIEST:%Y} and now")
    if known > now:
        raise ContractError("known_at", "is in the future")
    if label.known_at is not None and known < event:
        raise ContractError("known_at", "is before the transaction's event_time")
    if known < now - KNOWN_WITHIN and not reporter.admin:
        raise ContractError("known_at", "lies more than an hour back, which takes the scope admin")
    name = inside(name, reporter.ids)
    if label.reason is not None and looks_like_card_number(label.reason):
        raise ContractError("reason", "looks like a card number; send a code instead")
    return KeptLabel(name, event, label.is_fraud, label.source, known, reporter.name, label.reason)


def inside(name: str, ids: str) -> str:
    """What the transaction that the reporter calls `name` is called inside; without an id space of his
    own he says that himself."""
    if len(name) > LONGEST_ID and (ids or SEPARATOR not in name):
        raise ContractError("transaction_id", f"should be {_EXPECTED['transaction_id']}")
    return f"{ids}{SEPARATOR}{name}" if ids else name


def utc(moment: datetime, field: str) -> datetime:
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ContractError(field, "does not exist in UTC") from None


def _refusal(message: str) -> ContractError:
    for name, expected in _EXPECTED.items():
        if f"`{name}`" in message or f".{name}`" in message:
            return ContractError(name, f"should be {expected}")
    if "unknown field" in message:
        name = message.partition("`")[2].partition("`")[0]
        return ContractError(redact(name)[:64], "is not a field of a label")
    return ContractError("(body)", "should be one label or a list of labels")


def labels_folder(home: Path) -> Path:
    return home / "labels"


def read_summary(folder: Path) -> Summary:
    """What the last conversion left waiting in `folder`; nothing where there was none."""
    try:
        return msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
    except (OSError, ValueError):
        return Summary()


class ReportStore:
    """Takes reports of one `kind` into `folder`, from where another process takes them on."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._series = f"{kind}-{new_series()}"
        self._segment = 0
        self._file: SpoolFile | None = None
        self._opened = 0.0
        self._lock = threading.Lock()  # requests append from threads

    def append(self, reports: Sequence[Struct]) -> bool:
        """Write `reports` through to the disk (blocks for it); False when the disk refuses them."""
        with self._lock:
            try:
                if self._file is None:
                    self._file = SpoolFile(self._folder / f"{self._series}-{self._segment:06d}.open", limit=0)
                    self._opened = time.monotonic()
                self._file.append([_encode(report) for report in reports])
                self._file.sync()
            except (SpoolFull, OSError):  # with a limit of 0 nothing waits in memory
                return False
        return True

    def tick(self) -> None:
        """Close a segment that is old enough; the next tick does it if one is being written."""
        if self._file is None or time.monotonic() - self._opened < SEGMENT_SECONDS:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is None:
            return
        if self._file.written:
            self._file.finish(self._file.path.with_suffix(".ready"))
        else:
            self._file.close(remove=True)
        self._file = None
        self._segment += 1


class LabelStore(ReportStore):
    """Takes labels; `convert_labels` brings them into the lake."""

    def __init__(self, home: Path) -> None:
        super().__init__(labels_folder(home), "labels")
