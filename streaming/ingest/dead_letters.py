"""Dead letters: events that broke the contract, kept with the reason and the original bytes.

A letter is named by partition and position, so a replay of the log writes the same letter, not
a second one. Digits of anything that looks like a card number are masked before a letter is
kept: the platform holds no card number, not even in what it refuses.
"""

from __future__ import annotations

import argparse
import base64
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from fraud.contract.cards import looks_like_card_number, with_card_numbers
from fraud.contract.transaction import ContractError
from stores.aside import NAME as ASIDE_NAME
from stores.aside import put_aside
from stores.files import write_whole
from stores.settings import Settings, settings
from streaming.ingest.letter_topic import LetterTopic

_DIGIT: Final = re.compile(r"\d")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
#: Bytes of a refused event that are kept: four times what the contract takes. No event is longer.
LONGEST: Final = 65_536
#: What a cut may have left of a number: digits, and what stands between them.
_BROKEN_END: Final = re.compile(rb"[0-9 .\-\\]{1,64}$")


class DeadLetter(Struct, frozen=True):
    """One refused event. `original` is base64 of its bytes; with `masked`, card-number digits
    in them were replaced by ``*``, with `cut` only the first `LONGEST` of its `size` bytes are kept: such
    a letter cannot be replayed as it was."""

    partition: int
    position: str
    field: str
    reason: str
    original: str
    masked: bool
    cut: bool = False
    size: int = 0


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(DeadLetter).decode


def dead_letter(partition: int, position: str, error: ContractError, payload: bytes) -> DeadLetter:
    """The letter for `payload`, which `error` refused."""
    whole = payload
    cut = len(payload) > LONGEST
    if cut:  # a number that the cut goes through would no longer be seen for what it is
        payload = _BROKEN_END.sub(b"", payload[:LONGEST])
    kept = mask_card_numbers(payload)
    return DeadLetter(
        partition, position, error.field, error.reason, base64.b64encode(kept).decode(), kept != payload,
        cut, len(whole),
    )  # fmt: skip


def mask_card_numbers(payload: bytes) -> bytes:
    """`payload` with every digit of every card number in it replaced by ``*``."""
    text = payload.decode(errors="surrogateescape")
    kept = with_card_numbers(text, partial(_DIGIT.sub, "*")).encode(errors="surrogateescape")
    # Numbers that escapes hide: what is left in doubt loses every digit.
    plain = _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), kept.decode(errors="replace"))
    return _DIGIT.sub("*", plain).encode(errors="replace") if looks_like_card_number(plain) else kept


class LetterBox:
    """The letters of one partition, buffered until `flush` writes them as one file.

    A file is named by the log sequence of its first letter: what a crashed run wrote beyond
    its last snapshot is removed when the replay reaches that sequence again.
    """

    def __init__(self, folder: Path, copies: LetterTopic | None = None) -> None:
        self._folder = folder
        self._copies = copies
        self._letters: list[DeadLetter] = []

    def add(self, letters: list[DeadLetter]) -> None:
        self._letters.extend(letters)

    def flush(self) -> None:
        """Write what is buffered; the positions in the name make a second flush of it harmless."""
        if not self._letters:
            return
        path = self._folder / f"{_file_safe(self._letters[0].position)}.jsonl"
        lines = [_encode(letter) for letter in self._letters]
        write_whole(path, b"".join(line + b"\n" for line in lines))
        if self._copies is not None:
            for letter, line in zip(self._letters, lines, strict=True):
                self._copies.send(f"{letter.partition}-{letter.position}", line)
        self._letters.clear()

    def close(self) -> None:
        if self._copies is not None:
            self._copies.close()


def letters_folder(configured: Settings, topic: str | None = None) -> Path:
    """Where the letters of `topic` (default: transactions) are kept."""
    return configured.home / "dead_letters" / (topic or configured.event_log.topic)


def read_letters(folder: Path) -> Iterator[tuple[Path, DeadLetter]]:
    """Letters under `folder` that were not replayed, with the file of each; every position once."""
    known = {
        (letter.partition, letter.position)
        for path in folder.glob("*/*.replayed")
        for letter in _letters(path)
    }
    for path in sorted(folder.glob("*/*.jsonl")):
        for letter in _letters(path):
            if (letter.partition, letter.position) not in known:
                known.add((letter.partition, letter.position))
                yield path, letter


def damaged_lines(path: Path) -> list[bytes]:
    """The lines of a file of letters that are no letters."""
    return [line for line in path.read_bytes().splitlines() if _letter(line) is None]


def _letters(path: Path) -> Iterator[DeadLetter]:
    """The letters of a file; a line that is none holds up no other."""
    for line in path.read_bytes().splitlines():
        letter = _letter(line)
        if letter is not None:
            yield letter


def _letter(line: bytes) -> DeadLetter | None:
    try:
        letter = _decode(line)
        base64.b64decode(letter.original, validate=True)
    except (ValueError, RecursionError):  # msgspec's and binascii's errors are such
        return None
    return letter


def _file_safe(position: str) -> str:
    milliseconds, _, sequence = position.partition("-")
    return f"{int(milliseconds):020d}-{int(sequence or 0):010d}"


class Replayed(NamedTuple):
    """How many letters were published again; how many not, as they had been masked or cut, or name a
    partition that there is no longer; and how many lines were no letters."""

    published: int
    kept_back: int
    damaged: int


def replay(configured: Settings, topic: str) -> Replayed:
    """Publish every letter to the event log again that is as it was.

    A file whose letters were published is renamed to ``.replayed``. Run it after a fix: what
    still breaks the contract comes back as a new letter at its new position. Lines that are no letters go
    aside, with the folder's `aside.jsonl`.
    """
    from streaming.log.publish import open_writer

    folder = letters_folder(configured, topic)
    published = kept_back = damaged = 0
    with open_writer(configured, topic) as writer:
        for _, letter in read_letters(folder):
            if letter.masked or letter.cut or not 0 <= letter.partition < configured.event_log.partitions:
                kept_back += 1
                continue
            writer.publish_raw(letter.partition, base64.b64decode(letter.original))
            published += 1
        writer.flush()
    for path in sorted(folder.glob("*/*.jsonl")):
        for line in damaged_lines(path):
            put_aside(folder, "is no dead letter", line, file=path.name)
            damaged += 1
        path.rename(path.with_suffix(".replayed"))
    return Replayed(published, kept_back, damaged)


def main(arguments: list[str] | None = None) -> int:
    """`python -m streaming.ingest.dead_letters list|replay`."""
    parser = argparse.ArgumentParser(prog="python -m streaming.ingest.dead_letters", description=main.__doc__)
    parser.add_argument("command", choices=("list", "replay"))
    parser.add_argument("--topic", help="default: TOLLGATE_TOPIC")
    chosen = parser.parse_args(arguments)
    configured = settings()
    topic = chosen.topic or configured.event_log.topic
    if chosen.command == "replay":
        done = replay(configured, topic)
        print(f"{done.published} letters published to {topic} again")
        if done.kept_back:
            print(
                f"{done.kept_back} were not: a card number in them was masked, they were too long to be kept "
                "whole, or their partition is gone"
            )
        if done.damaged:
            print(f"{done.damaged} lines are no letters: {letters_folder(configured, topic) / ASIDE_NAME}")
        return 0
    count = 0
    for _, letter in read_letters(letters_folder(configured, topic)):
        count += 1
        note = "  (card number masked)" if letter.masked else ""
        note += f"  (the first {LONGEST:,} of {letter.size:,} bytes)" if letter.cut else ""
        print(f"{letter.partition}  {letter.position}  {letter.field}: {letter.reason}{note}")
    print(f"{count} dead letters of topic {topic}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
