"""Labels from chargebacks and analysts: on disk before they are acknowledged, then in the lake.

A label is stamped with when it became known (`known_at`, the receiver's clock unless the sender
says when it learnt of it), because training must not know it earlier.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from fraud.contract.cards import looks_like_card_number, redact
from fraud.contract.transaction import ContractError, Identifier
from stores.spool import SpoolFile, SpoolFull, orphaned, read_frames

LARGEST_BATCH: Final = 1000
SEGMENT_SECONDS: Final = 5.0


class Label(Struct, frozen=True, forbid_unknown_fields=True):
    """One report. `event_time` is the transaction's; times carry offsets.

    `known_at` is when the report became known to its sender, and may not precede the event.
    """

    transaction_id: Identifier
    event_time: Annotated[datetime, Meta(tz=True)]
    is_fraud: bool
    source: Literal["chargeback", "analyst"]
    known_at: Annotated[datetime, Meta(tz=True)] | None = None


_EXPECTED: Final = {
    "transaction_id": "a string of 1 to 64 characters",
    "event_time": "the transaction's RFC 3339 time with an offset",
    "is_fraud": "true or false",
    "source": "chargeback or analyst",
    "known_at": "an RFC 3339 time with an offset, or absent",
}
_decode = msgspec.json.Decoder(list[Label] | Label).decode
_encode = msgspec.json.Encoder().encode
_decode_stored = msgspec.json.Decoder(Label).decode


def parse_labels(raw: bytes, now: datetime) -> list[Label]:
    """One label or a list of up to `LARGEST_BATCH`, each stamped; raise `ContractError`.

    `now` (UTC) is the receiver's clock.
    """
    try:
        decoded = _decode(raw)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ContractError("(body)", "is not valid JSON") from None
    labels = decoded if isinstance(decoded, list) else [decoded]
    if not 1 <= len(labels) <= LARGEST_BATCH:
        raise ContractError("(body)", f"should hold 1 to {LARGEST_BATCH} labels")
    stamped = []
    for label in labels:
        if looks_like_card_number(label.transaction_id):
            raise ContractError("transaction_id", "looks like a card number")
        known = label.known_at or now
        if known > now:
            raise ContractError("known_at", "is in the future")
        if known < label.event_time:
            raise ContractError("known_at", "is before the transaction's event_time")
        stamped.append(msgspec.structs.replace(label, known_at=known))
    return stamped


def _refusal(message: str) -> ContractError:
    for name, expected in _EXPECTED.items():
        if f"`{name}`" in message or f".{name}`" in message:
            return ContractError(name, f"should be {expected}")
    if "unknown field" in message:
        name = message.partition("`")[2].partition("`")[0]
        return ContractError(redact(name)[:64], "is not a field of a label")
    return ContractError("(body)", "should be one label or a list of labels")


def _folder(home: Path) -> Path:
    return home / "labels"


class LabelStore:
    """Takes labels; `convert_labels` brings them into the lake."""

    def __init__(self, home: Path) -> None:
        self._folder = _folder(home)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._series = f"labels-{stamp}-{os.getpid()}-{secrets.token_hex(3)}"
        self._segment = 0
        self._file: SpoolFile | None = None
        self._opened = 0.0
        self._lock = threading.Lock()  # requests append from threads

    def append(self, labels: Sequence[Label]) -> bool:
        """Write `labels` through to the disk (blocks for it); False when the disk refuses them."""
        with self._lock:
            try:
                if self._file is None:
                    self._file = SpoolFile(self._folder / f"{self._series}-{self._segment:06d}.open", limit=0)
                    self._opened = time.monotonic()
                self._file.append([_encode(label) for label in labels])
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


def convert_labels(home: Path) -> int:
    """Bring closed (or abandoned) label segments into the lake; return how many labels."""
    import pyarrow as pa

    from stores.lake import LABEL_SCHEMA, write_labels

    total = 0
    folder = _folder(home)
    segments = sorted(folder.glob("*.ready")) + [
        path for path in sorted(folder.glob("*.open")) if orphaned(path)
    ]
    for segment in segments:
        rows = [_decode_stored(record) for record in read_frames(segment)]
        table = pa.table(
            {
                "transaction_id": [row.transaction_id for row in rows],
                "event_timestamp": [row.event_time.astimezone(UTC) for row in rows],
                "created_timestamp": [row.known_at.astimezone(UTC) for row in rows if row.known_at],
                "is_fraud": [row.is_fraud for row in rows],
                "source": [row.source for row in rows],
            },
            schema=LABEL_SCHEMA,
        )
        write_labels(table, home / "lake", name=segment.stem)
        segment.unlink()
        total += len(rows)
    return total
