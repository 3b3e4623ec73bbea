"""Files by URI: a folder here, or an object store (`file://`, `s3://`, `gs://`, `abfs://`).

One opener over Arrow's filesystems. A file appears whole (an object is put at once; in a folder it gets its
name when it is complete) and is never renamed, because an object store cannot rename: what belongs together
is committed by `stores.commits`. Credentials come from where the store's own tools take them (for S3
`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, a profile or the machine's role), never from the address:
addresses are logged.

S3's address may say `endpoint_override=HOST:PORT`, `scheme=http`, `region=...` and `tls_ca_file_path=...`.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from stores.files import written_whole

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES: Final = ("file", "s3", "gs", "abfs")
#: Options of an S3 address, by their names in Arrow.
_S3_OPTIONS: Final = frozenset({"endpoint_override", "scheme", "region", "tls_ca_file_path"})
#: Seconds that one call may take to be answered, and how often it is tried.
_CONNECT_SECONDS: Final = 3.0
_REQUEST_SECONDS: Final = 20.0
_TRIES: Final = 3
_COPY_BYTES: Final = 4_000_000


class PlaceError(ValueError):
    """An address that cannot be used; the text says what it should be."""


class PlaceAway(OSError):
    """The store does not answer, or refuses: what was asked of it may be asked again later."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a place: its name below the root, its bytes, and when it was put (seconds since 1970)."""

    name: str
    size: int
    modified: float


def checked_place(url: str) -> str:
    """`url` if it is the address of a place; raise `PlaceError`."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise PlaceError(f"should start with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if "@" in parts.netloc and parts.scheme != "abfs":
        raise PlaceError("should hold no credentials: give them as the store's own tools take them")
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise PlaceError("should be file:// and an absolute path")
    if parts.scheme != "file" and not parts.netloc:
        raise PlaceError("should name a bucket")
    unknown = {name for name, _ in parse_qsl(parts.query)} - _S3_OPTIONS
    if parts.scheme == "s3" and unknown:
        raise PlaceError(f"knows no option {sorted(unknown)[0][:40]!r}: {', '.join(sorted(_S3_OPTIONS))}")
    return url


def open_place(url: str) -> Place:
    """The place at `url`; raise `PlaceError` for an address that is none. Nothing is asked of it yet."""
    from pyarrow import fs

    parts = urlsplit(checked_place(url))
    if parts.scheme == "file":
        root = unquote(parts.path).rstrip("/") or "/"
        return Place(fs.LocalFileSystem(), root, f"file://{root}", local=True)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
    if parts.scheme == "s3":
        options: dict[str, Any] = dict(parse_qsl(parts.query))
        store = fs.S3FileSystem(
            connect_timeout=_CONNECT_SECONDS, request_timeout=_REQUEST_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES), **options,
        )  # fmt: skip
        return Place(store, f"{parts.netloc}{unquote(parts.path)}".rstrip("/"), shown)
    # Arrow's own reading of what is particular to the two others.
    found, root = fs.FileSystem.from_uri(url)
    return Place(found, root.rstrip("/"), shown)


class Place:
    """A root in a file system. Names are relative, with `/` between their parts."""

    def __init__(self, store: FileSystem, root: str, shown: str, *, local: bool = False) -> None:
        self._store = store
        self._root = root
        self._local = local
        #: The address, fit to be logged.
        self.shown = shown

    def below(self, name: str) -> Place:
        """The place one folder down."""
        return Place(self._store, self._path(name), f"{self.shown}/{name}", local=self._local)

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError, `PlaceAway`."""
        with self._asked(), self._store.open_input_file(self._path(name)) as file:
            content: bytes = file.read()
            return content

    def fetch(self, name: str, to: Path, *, digest: str | None = None) -> None:
        """Copy a file to this machine: `to` appears whole, and only with the SHA-256 `digest` (hex).

        Raises FileNotFoundError, `PlaceAway`, and ValueError for other bytes.
        """
        seen = hashlib.sha256()
        with written_whole(to, durable=True) as unfinished:
            with (
                unfinished.open("wb") as target,
                self._asked(),
                self._store.open_input_stream(self._path(name)) as source,
            ):
                while part := source.read(_COPY_BYTES):
                    seen.update(part)
                    target.write(part)
            if digest is not None and seen.hexdigest() != digest:
                raise ValueError(f"{self.shown}/{name}: does not have the digest it was committed with")

    def write(self, name: str, content: bytes | Path) -> None:
        """Put a file, replacing one of that name: readers see the old one or the whole new one."""
        if self._local:
            with written_whole(Path(self._path(name)), durable=True) as unfinished:
                if isinstance(content, bytes):
                    unfinished.write_bytes(content)
                else:
                    shutil.copyfile(content, unfinished)
            return
        with self._asked(), self._store.open_output_stream(self._path(name)) as target:
            if isinstance(content, bytes):
                target.write(content)
                return
            with content.open("rb") as source:
                while part := source.read(_COPY_BYTES):
                    target.write(part)

    def names(self, folder: str = "") -> list[Found]:
        """Every finished file below `folder`, however deep, sorted by name; none where there is no folder."""
        from pyarrow.fs import FileSelector, FileType

        at = self._path(folder) if folder else self._root
        with self._asked():
            found = self._store.get_file_info(FileSelector(at, allow_not_found=True, recursive=True))
        files = [
            Found(info.path.removeprefix(self._root).lstrip("/"), info.size, (info.mtime_ns or 0) / 1e9)
            for info in found
            if info.type == FileType.File and not info.base_name.startswith(".")
        ]
        return sorted(files, key=lambda file: file.name)

    def delete(self, name: str) -> None:
        """Take a file away; one that is not there is away already."""
        try:
            with self._asked():
                self._store.delete_file(self._path(name))
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise PlaceError(f"{name[:80]!r} is no name below {self.shown}")
        return f"{self._root}/{name}"

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Tell what is not there from a store that does not answer."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise FileNotFoundError(errno.ENOENT, "is not there", self.shown) from None
            raise PlaceAway(f"{self.shown}: {str(error)[:300]}") from None
