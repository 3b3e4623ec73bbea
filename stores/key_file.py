"""The file of a deployment's keys: private to its user, whole at every moment, made once.

JSON: ``{"format": 1, "identity": "<64 hex digits>", "keys": [{"id": "9f3a12cd", "made": "...",
"signs_from": "...", "secret": "<64 hex digits>", "retired": false}]}``. A key's id is derived from
its secret, so that every host calls it by the same name and a slip of the hand is noticed; it tells
nothing about the secret. `identity` stands apart because it cannot be exchanged: states hold what
was hashed under it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

FORMAT: Final = 1
SECRET_BYTES: Final = 32
ID_BYTES: Final = 4
#: No keyring is larger; whatever else the path names is not read whole.
_LARGEST: Final = 1 << 20

_Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class KeyringError(ValueError):
    """A keyring that cannot be used; the text names TOLLGATE_KEYS_FILE and says what to do."""


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """One key: it signs from `signs_from` until a newer one does, and verifies until it is `retired`."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
    made: datetime
    signs_from: datetime
    secret: _Hex
    retired: bool = False

    def __repr__(self) -> str:
        return f"Key({self.id})"


class Ring(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds: keys, oldest first, and the secret of event identity."""

    format: int
    identity: _Hex
    keys: tuple[Key, ...]

    def __repr__(self) -> str:
        return f"Ring({', '.join([key.id for key in self.keys])})"


_decode = msgspec.json.Decoder(Ring).decode


def new_key(signs_from: datetime) -> Key:
    """A key of random bytes that signs from then on (UTC)."""
    secret = secrets.token_bytes(SECRET_BYTES)
    return Key(key_id(secret), datetime.now(UTC).replace(microsecond=0), signs_from, secret.hex())


def key_id(secret: bytes) -> str:
    """The name of a key: 8 hexadecimal digits that tell nothing about it."""
    return blake2b(key=secret, digest_size=ID_BYTES, person=b"tollgate key id").hexdigest()


def default_key_file() -> Path:
    """The user's own keyring: ``$XDG_CONFIG_HOME/tollgate/keys.json``, in ``~/.config`` without it."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(configured) if configured else Path.home() / ".config") / "tollgate" / "keys.json"
    except RuntimeError:  # a user without a home
        raise KeyringError("TOLLGATE_KEYS_FILE: this user has no home folder; name a file") from None


def read_ring(path: Path, *, signing: bool = True) -> Ring:
    """The keyring in `path`; raise `KeyringError` where it is missing, broken or not private.

    Without `signing` it may hold the identity alone, and no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyringError(
            f"TOLLGATE_KEYS_FILE: there is no {path}; make it with `python -m stores.keys new` and give "
            "the same file to every host"
        ) from None
    except OSError as error:
        raise KeyringError(f"TOLLGATE_KEYS_FILE: {path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        _check_private(path, os.fstat(file.fileno()))
        try:
            ring = _decode(file.read(_LARGEST))
        except (msgspec.DecodeError, UnicodeDecodeError, OSError):
            raise KeyringError(f"TOLLGATE_KEYS_FILE: {path} is not a whole keyring") from None
    if ring.format != FORMAT:
        raise KeyringError(f"TOLLGATE_KEYS_FILE: {path} has format {ring.format}, not {FORMAT}")
    _check_keys(path, ring, signing=signing)
    return ring


def _check_keys(path: Path, ring: Ring, *, signing: bool = True) -> None:
    if signing and not any(not key.retired for key in ring.keys):
        raise KeyringError(f"TOLLGATE_KEYS_FILE: {path} holds no key that is in force")
    names = [key.id for key in ring.keys]
    if len(set(names)) < len(names):
        raise KeyringError(f"TOLLGATE_KEYS_FILE: {path} holds a key twice")
    for key in ring.keys:
        if key_id(bytes.fromhex(key.secret)) != key.id:
            raise KeyringError(f"TOLLGATE_KEYS_FILE: {path}: the secret of {key.id} is not whole")
        if key.signs_from.tzinfo is None or key.made.tzinfo is None:
            raise KeyringError(f"TOLLGATE_KEYS_FILE: {path}: the times of {key.id} lack an offset")


def _check_private(path: Path, found: os.stat_result) -> None:
    """This user's file, mode 0600; or root's, which this process's group may read at most: how
    orchestrators mount secrets.
    """
    if not stat.S_ISREG(found.st_mode):
        raise KeyringError(f"TOLLGATE_KEYS_FILE: {path} is not a file")
    if found.st_uid not in (os.getuid(), 0):
        raise KeyringError(f"TOLLGATE_KEYS_FILE: {path} belongs to another user")
    mounted = found.st_uid == 0 and os.getuid() != 0
    if found.st_mode & (0o037 if mounted else 0o077):
        raise KeyringError(f"TOLLGATE_KEYS_FILE: {path} is open to other users; chmod 600 {path}")
    folder = path.parent.stat()
    if folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX:
        raise KeyringError(
            f"TOLLGATE_KEYS_FILE: other users may exchange files in {path.parent}; chmod 700 {path.parent}"
        )


def make_ring(path: Path) -> Ring:
    """Make a keyring with one key, unless somebody has: of processes that race all get the same one."""
    ring = Ring(FORMAT, secrets.token_hex(SECRET_BYTES), (new_key(datetime.fromtimestamp(0, UTC)),))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = _written(path, ring)
        try:
            os.link(unfinished, path)  # unlike a rename this fails where there is one
        except FileExistsError:
            pass
        finally:
            unfinished.unlink()
    except OSError as error:
        raise KeyringError(
            f"TOLLGATE_KEYS_FILE: a keyring cannot be made at {path}: {error.strerror}; name another file"
        ) from None
    return read_ring(path)


def copy_identity(path: Path, copy: Path) -> None:
    """Make a keyring without keys, for jobs that rebuild states and should sign nothing."""
    if copy.exists():
        raise KeyringError(f"{copy} is there already")
    _written(copy, msgspec.structs.replace(read_ring(path), keys=())).replace(copy)


def change_ring(path: Path, change: Callable[[Ring], Ring]) -> Ring:
    """Exchange the keyring for what `change` makes of it, one process at a time."""
    with _alone(path.parent):
        ring = change(read_ring(path))
        _check_keys(path, ring)
        _written(path, ring).replace(path)
    return ring


def _written(path: Path, ring: Ring) -> Path:
    """`ring` in a file beside `path` that nobody else reads."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(ring), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return unfinished


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
