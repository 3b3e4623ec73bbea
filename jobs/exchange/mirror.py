"""A folder of this host and a collection of the shared store, brought into step.

`ship` commits what is new or changed here, and takes away what was here and no longer is; `pull` brings
what is new in the store and takes away what was taken away there. What this host *holds* (names with the
digest that here and there agreed on) is kept in a file, so that a host that starts again tells "deleted
here" from "new there". A folder that was lost as a whole (a new disk) deletes nothing in the store: it is
filled again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from stores.commits import Collection, File
from stores.files import write_whole

#: Files and bytes of one commit at most: what is behind goes out in several.
MOST_FILES: Final = 256
MOST_BYTES: Final = 512_000_000


class Held(msgspec.Struct, frozen=True):
    """A file that here and there agree on: its digest there, and what told it here (bytes, nanoseconds)."""

    digest: str
    size: int
    modified: int


Files = Callable[[Path], Iterable[Path]]


def every_file(folder: Path) -> list[Path]:
    """All finished files below `folder`."""
    return [path for path in folder.rglob("[!.]*") if path.is_file() and not _hidden(path, folder)]


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_compact-")) for part in path.relative_to(folder).parts)


class Mirror:
    """One folder and one collection. `files` lists what belongs there; `ready` says whether it is whole now;
    without `deletes` what somebody deletes here stays in the store."""

    def __init__(
        self,
        collection: Collection,
        folder: Path,
        kept: Path,
        *,
        files: Files = every_file,
        ready: Callable[[Path], bool] = lambda path: True,
        deletes: bool = True,
    ) -> None:
        self.collection = collection
        self.folder = folder
        self._kept = kept
        self._files = files
        self._ready = ready
        self._deletes = deletes
        self._held: dict[str, Held] = _read(kept)

    def _here(self) -> dict[str, Path]:
        if not self.folder.is_dir():
            return {}
        return {path.relative_to(self.folder).as_posix(): path for path in self._files(self.folder)}

    def pull(self, wanted: Callable[[str], bool] = lambda name: True) -> int:
        """Bring what is new there and take away what was taken away there; how many files changed."""
        there = {name: file for name, file in self.collection.files().items() if wanted(name)}
        here = self._here()
        lost = bool(self._held) and not here
        if lost:
            self._held = {}
        changed = 0
        for name, file in there.items():
            held = self._held.get(name)
            if held is not None and (held.digest == file.digest or name not in here):
                continue  # in step, or deleted here: `ship` says so there
            if held is None and name in here and self._same(here[name], file):
                self._hold(name, file, here[name])
                continue
            self.collection.fetch(file, self.folder / name)
            self._hold(name, file, self.folder / name)
            changed += 1
        for name in [name for name in self._held if wanted(name) and name not in there]:
            (self.folder / name).unlink(missing_ok=True)
            del self._held[name]
            changed += 1
        if changed or lost:
            self._keep()
        return changed

    def ship(self) -> int:
        """Commit what is new, changed or gone here; how many files. What waits goes with the next look."""
        here = {name: path for name, path in self._here().items() if self._ready(path)}
        fresh: dict[str, Path] = {}
        size = 0
        for name, path in sorted(here.items()):
            found, held = path.stat(), self._held.get(name)
            if held is not None and (held.size, held.modified) == (found.st_size, found.st_mtime_ns):
                continue
            if len(fresh) >= MOST_FILES or (size + found.st_size > MOST_BYTES and fresh):
                break
            fresh[name] = path
            size += found.st_size
        gone = [name for name in self._held if name not in here and not (self.folder / name).exists()]
        if gone and (not here or not self._deletes):
            # The folder is lost, not its contents deleted one by one; or what went here stays there.
            self._held = {name: held for name, held in self._held.items() if here and name not in gone}
            gone = []
        if not fresh and not gone:
            return 0
        there = self.collection.files()
        marks = {name: (path.stat().st_size, path.stat().st_mtime_ns) for name, path in fresh.items()}
        new = {name: path for name, path in fresh.items() if not self._same(path, there.get(name))}
        added = {file.name: file for file in self.collection.commit(new, gone)} if new or gone else {}
        for name, mark in marks.items():
            self._held[name] = Held((added.get(name) or there[name]).digest, *mark)
        for name in gone:
            del self._held[name]
        self._keep()
        return len(fresh) + len(gone)

    def forget_old(self, seconds: float, now: float | None = None) -> int:
        """Delete here what was shipped and is older than that; it stays in the store. How many files went."""
        now = time.time() if now is None else now
        old = [name for name, held in self._held.items() if held.modified / 1e9 < now - seconds]
        for name in old:
            del self._held[name]
        if old:
            self._keep()  # first: a file that is here and not held is shipped again, never deleted there
            for name in old:
                (self.folder / name).unlink(missing_ok=True)
        return len(old)

    def waiting(self) -> int:
        """Files here that are not shipped as they are now."""
        return sum(name not in self._held for name in self._here())

    @staticmethod
    def _same(path: Path, file: File | None) -> bool:
        import hashlib

        if file is None or path.stat().st_size != file.size:
            return False
        with path.open("rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest() == file.digest

    def _hold(self, name: str, file: File, path: Path) -> None:
        found = path.stat()
        self._held[name] = Held(file.digest, found.st_size, found.st_mtime_ns)

    def _keep(self) -> None:
        write_whole(self._kept, msgspec.json.encode(self._held), durable=True)


def _read(path: Path) -> dict[str, Held]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Held]) if path.is_file() else {}
