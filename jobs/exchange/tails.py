"""What workers are writing just now, shipped while it is written: a lost host loses a second of it, not a file.

A segment (`stores.spool`) grows by whole frames. Each look ships the frames since the last one as a file
`journal/<segment>/<offset>.frames` of the collection. Once the segment has become something else that is
shipped (parquet of its decisions), one commit adds that and takes the frames away. The frames of a host that
never came to that are put together again elsewhere (`adopt`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from stores.commits import Collection, File
from stores.files import write_whole
from stores.spool import read_part

JOURNAL: Final = "journal"
_MOST_BYTES: Final = 16_000_000


class Tails:
    """The segments of one folder (`*.open`, `*.ready`) and their frames in a collection."""

    def __init__(self, collection: Collection, folder: Path) -> None:
        self.collection = collection
        self._folder = folder
        self._shipped: dict[str, int] = {}

    def segments(self) -> dict[str, Path]:
        """Segments here, by their names without state."""
        found = [*self._folder.glob("[!.]*.open"), *self._folder.glob("[!.]*.ready")]
        return {path.stem: path for path in sorted(found) if path.is_file()}

    def resume(self) -> None:
        """Learn what was shipped before this process."""
        self._shipped = {}
        for stem, files in frames(self.collection.files()).items():
            last = files[-1]
            self._shipped[stem] = _offset(last) + last.size

    def fresh(self) -> dict[str, bytes]:
        """Frames that are written and not shipped, by the name that they get."""
        found: dict[str, bytes] = {}
        size = 0
        for stem, path in self.segments().items():
            at = self._shipped.get(stem, 0)
            try:
                _, end = read_part(path, at, _MOST_BYTES)
                with path.open("rb") as file:
                    file.seek(at)
                    part = file.read(end - at)
            except FileNotFoundError:  # it has just become something else
                continue
            if part:
                found[f"{JOURNAL}/{stem}/{at:012d}.frames"] = part
                size += len(part)
            if size > _MOST_BYTES:
                break
        return found

    def ship(self) -> int:
        """Commit the frames that are written and not shipped; how many bytes."""
        found = self.fresh()
        if not found:
            return 0
        self.collection.commit(found)
        for name, part in found.items():
            _, stem, place = name.split("/")
            self._shipped[stem] = int(place.partition(".")[0]) + len(part)
        return sum(map(len, found.values()))

    def whole(self, stem: str) -> bool:
        """Whether all that a segment holds now is shipped."""
        path = self.segments().get(stem)
        return path is not None and self._shipped.get(stem, 0) >= path.stat().st_size

    def forget(self, stems: Iterable[str]) -> None:
        for stem in stems:
            self._shipped.pop(stem, None)


def frames(files: dict[str, File]) -> dict[str, list[File]]:
    """The shipped frames of each segment in their order; what stands after a gap is left out."""
    found: dict[str, list[File]] = {}
    for name in sorted(name for name in files if name.startswith(f"{JOURNAL}/")):
        _, stem, _ = name.split("/")
        before = found.setdefault(stem, [])
        if _offset(files[name]) == (_offset(before[-1]) + before[-1].size if before else 0):
            before.append(files[name])
    return found


def _offset(file: File) -> int:
    return int(file.name.rpartition("/")[2].partition(".")[0])


class Abandoned:
    """Tells which segments nobody goes on with: their frames have not changed for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[str, tuple[int, float]] = {}

    def among(
        self, shipped: dict[str, list[File]], now: float | None = None
    ) -> Iterator[tuple[str, list[File]]]:
        now = time.monotonic() if now is None else now
        self._seen = {stem: seen for stem, seen in self._seen.items() if stem in shipped}
        for stem, files in shipped.items():
            length, since = self._seen.get(stem, (-1, now))
            if length != len(files):
                self._seen[stem] = (len(files), now)
            elif now - since >= self._seconds:
                yield stem, files


def adopt(collection: Collection, stem: str, files: Iterable[File], folder: Path) -> Path:
    """Put a segment together from its frames, as `<stem>.ready` in `folder`."""
    parts = []
    for file in files:
        to = folder / f".{file.digest[:16]}.part"
        collection.fetch(file, to)
        parts.append(to.read_bytes())
        to.unlink()
    target = folder / f"{stem}.ready"
    write_whole(target, b"".join(parts), durable=True)
    return target
