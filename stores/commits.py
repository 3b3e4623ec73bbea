"""Commits without rename: what belongs together becomes visible by one object that is put last.

A *collection* (models, decisions, arrivals, ...) is a folder of a place (`stores.places`):

    data/<name>              the files; one that is replaced gets another name, none is ever rewritten
    commits/<time>-<writer>-<random>.json      what one commit added and removed

A commit puts its files first and then its own object, so a reader who goes by commits sees all of it or
nothing. Writers do not share an object that they replace (object stores reached through Arrow have no
compare-and-swap), so any number of them commit at once without losing one another's: the collection's state
is all commits, applied in the order of their names (a log of adds and removes, as Delta Lake and Iceberg
keep, without their one pointer that writers race for). What one commit cannot do is depend on another's being
there: who decides by what is in force keeps that in the state database (`stores.state`).

A *checkpoint* is a commit that stands for all those it names, which may then be deleted.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from stores.places import Place

#: What a file of a collection may be called: parts of a path that leads nowhere else.
_PART: Final = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9._=:+-]{0,199}")
_MOST_PARTS: Final = 8
_LARGEST_COMMIT: Final = 64_000_000
#: How often a list of commits is read of which one is gone before it could be read.
_LOOKS: Final = 5
#: Seconds that what a checkpoint stands for stays, for readers that listed before it.
GRACE_S: Final = 3600.0


class CommitError(ValueError):
    """A commit that cannot be made or read; the text names it."""


class File(msgspec.Struct, frozen=True):
    """A file of the collection: its name, where its bytes are, how many, and their SHA-256 (hex)."""

    name: str
    data: str
    size: int
    digest: str


class Commit(msgspec.Struct, frozen=True):
    """One commit. `at` is the writer's clock, nanoseconds since 1970; `remove` names data, not files, so that
    it means what its writer saw; `folds` are the commits that it stands for."""

    writer: str
    at: int
    add: tuple[File, ...] = ()
    remove: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()


_decode: Final = msgspec.json.Decoder(Commit).decode
_encode: Final = msgspec.json.Encoder().encode


def checked_name(name: str) -> str:
    """`name` if it can be a file's; raise `CommitError`. Names come out of storage: none leads elsewhere."""
    parts = name.split("/")
    if len(parts) > _MOST_PARTS or not all(map(_PART.fullmatch, parts)):
        raise CommitError(f"{name[:120]!r} is no name of a file in a collection")
    return name


class Collection:
    """The files of one collection. `writer` is this process's name in what it commits."""

    def __init__(self, place: Place, writer: str) -> None:
        self.place = place
        self._writer = checked_name(writer)
        self._commits: dict[str, Commit] = {}

    def __len__(self) -> int:
        """Commits that were last seen."""
        return len(self._commits)

    def files(self) -> dict[str, File]:
        """What is committed now, by name. Raises `PlaceAway`, and `CommitError` for what is no commit."""
        for _ in range(_LOOKS):
            listed = [found.name.rpartition("/")[2] for found in self.place.names("commits")]
            try:
                self._commits = {name: self._commits.get(name) or self._read(name) for name in listed}
            except FileNotFoundError:  # a checkpoint stands for it meanwhile: it is in the next list
                continue
            return _applied(self._commits)
        raise CommitError(f"{self.place.shown}/commits: changes faster than it can be read")

    def _read(self, name: str) -> Commit:
        content = self.place.read(f"commits/{name}")
        try:
            if len(content) > _LARGEST_COMMIT:
                raise CommitError(f"is larger than {_LARGEST_COMMIT} bytes")
            commit = _decode(content)
            for file in commit.add:
                checked_name(file.name)
                checked_name(file.data)
        except (msgspec.DecodeError, CommitError) as error:
            raise CommitError(f"{self.place.shown}/commits/{name}: {str(error)[:200]}") from None
        return commit

    def commit(self, add: Mapping[str, Path | bytes], remove: Iterable[str] = ()) -> list[File]:
        """Put files and make them visible at once, taking the names in `remove` away in the same moment.

        What goes away is what this process last saw under these names (`files`, its own commits). Returns
        what was added once it is acknowledged. Raises `PlaceAway`, having changed nothing that a reader sees
        (unless the store kept the commit and its answer was lost: the same again does no harm).
        """
        files = [self._put(name, content) for name, content in add.items()]
        gone = set(remove)
        seen = _applied(self._commits)
        data = tuple(seen[name].data for name in sorted(gone & seen.keys()))
        self._commit(Commit(self._writer, time.time_ns(), tuple(files), data))
        return files

    def _put(self, name: str, content: Path | bytes) -> File:
        checked_name(name)
        if isinstance(content, bytes):
            digest, size = hashlib.sha256(content).hexdigest(), len(content)
        else:
            with content.open("rb") as source:
                digest, size = hashlib.file_digest(source, "sha256").hexdigest(), source.tell()
        path = PurePosixPath(name)
        # By its contents: the same again is the same object, another one under this name is another.
        data = str(path.with_name(f"{path.stem}-{digest[:16]}{path.suffix}"))
        self.place.write(f"data/{data}", content)
        return File(name, data, size, digest)

    def _commit(self, commit: Commit) -> None:
        name = f"{commit.at:020d}-{self._writer}-{secrets.token_hex(3)}.json"
        self.place.write(f"commits/{name}", _encode(commit))
        self._commits[name] = commit

    def fetch(self, file: File, to: Path) -> None:
        """Copy a file to this machine, appearing whole; raise `CommitError` if its bytes are others."""
        try:
            self.place.fetch(f"data/{file.data}", to, digest=file.digest)
        except ValueError as error:
            raise CommitError(str(error)) from None

    def checkpoint(self, now: float | None = None) -> int:
        """Fold all commits into one, and delete what an earlier one has stood for long enough; how many went.

        One process at a time does this (the jobs host).
        """
        now = time.time() if now is None else now
        live = self.files()
        folded = {name for commit in self._commits.values() for name in commit.folds}
        gone = 0
        for commit in list(self._commits.values()):
            if not commit.folds or now - commit.at / 1e9 < GRACE_S:
                continue
            for old in sorted(set(commit.folds) & self._commits.keys()):
                self.place.delete(f"commits/{old}")
                del self._commits[old]
                gone += 1
        fresh = [name for name in self._commits if name not in folded]
        if len(fresh) > 1:
            # In the name's place of the last that it stands for: what comes meanwhile comes after it.
            self._commit(
                Commit(
                    self._writer, _time_of(max(fresh)), tuple(live.values()), (), tuple(sorted(self._commits))
                )
            )
        return gone


def _time_of(name: str) -> int:
    return int(name.partition("-")[0])


def _applied(commits: Mapping[str, Commit]) -> dict[str, File]:
    """Commits in the order of their names, without those that a checkpoint among them stands for."""
    folded = {name for commit in commits.values() for name in commit.folds}
    chosen = {name: commits[name] for name in sorted(commits.keys() - folded)}
    live: dict[str, File] = {}
    # A checkpoint may be older by name than a commit whose writer's clock is behind: what was removed
    # since stays removed.
    every = {data for commit in chosen.values() for data in commit.remove}
    for commit in chosen.values():
        gone = set(commit.remove)
        live = {name: file for name, file in live.items() if file.data not in gone} if gone else live
        live |= {file.name: file for file in commit.add if not commit.folds or file.data not in every}
    return live
