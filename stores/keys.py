"""What is signed and verified here: the deployment's keys, which its storage does not have.

Redis, the event log, the object store and the home folder hold what decides about money. Whoever
may write there must not be able to make it up, so it carries a message authentication code (keyed
BLAKE2b, RFC 7693) under a key from a file that stands elsewhere (`stores.key_file`).

A `Seal` signs for one purpose with a key derived for it, so that what was signed as an answer is no
control record. Several keys are valid at once: the newest signs, all verify. The file is looked at
every second and a broken one leaves the one before in force, so keys rotate while everything runs.

`python -m stores.keys new|rotate|retire|list`; docs/security.md says step by step.
"""

from __future__ import annotations

import argparse
import hmac
import logging
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import msgspec

from stores.files import mark
from stores.key_file import (
    ID_BYTES,
    Key,
    KeyringError,
    Ring,
    change_ring,
    copy_identity,
    default_key_file,
    make_ring,
    new_key,
    read_ring,
)
from stores.settings import Settings, settings

_log = logging.getLogger("tollgate.keys")

#: What keys are derived for. `answers`: claims and remembered answers; `outbox`: effects that wait on disk;
#: `control`: control records of the event log; `log`: the decision log's chain; `heads`: the ends of its
#: chains, put out; `recovery`: what a flow resumes from; `models`: what the model store holds.
Purpose = Literal["answers", "outbox", "control", "log", "heads", "recovery", "models"]

#: Bytes of a signature's code: 128 bits, which nobody guesses.
TAG_BYTES: Final = 16
#: Bytes of a code that stands alone, in a chain.
CODE_BYTES: Final = 32
#: Bytes of a signature: the id of its key, and the code.
SIGNATURE_BYTES: Final = ID_BYTES + TAG_BYTES


def derived(secret: bytes, purpose: str) -> bytes:
    """The key that `secret` has for one purpose."""
    return blake2b(purpose.encode(), key=secret, person=b"tollgate purpose", digest_size=32).digest()


class Seal:
    """Signs and verifies for one purpose. `Keys` exchanges its keys; one thread does both."""

    __slots__ = ("_by_id", "_id", "_key", "_purpose", "_retired")

    def __init__(self, purpose: Purpose, *, retired: bool = False) -> None:
        self._purpose = purpose
        self._retired = retired
        self._by_id: dict[bytes, bytes] = {}
        self._id = self._key = b""

    def take(self, ring: Ring, signing: Key) -> None:
        """Sign with `signing` from now on and verify with every key of `ring` that is in force."""
        self._by_id = {
            bytes.fromhex(key.id): derived(bytes.fromhex(key.secret), self._purpose)
            for key in ring.keys
            if self._retired or not key.retired
        }
        self._id = bytes.fromhex(signing.id)
        self._key = self._by_id[self._id]

    @property
    def key_id(self) -> bytes:
        """The id of the key that signs now."""
        return self._id

    def key(self, key_id: bytes) -> bytes | None:
        """The purpose's key with this id, None for one that is not in force."""
        return self._by_id.get(key_id)

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, `SIGNATURE_BYTES` long: about a microsecond for half a kilobyte."""
        return self._id + blake2b(data, key=self._key, digest_size=TAG_BYTES).digest()

    def code(self, data: bytes) -> bytes:
        """The code of `data` under the key that signs, `CODE_BYTES` long; `key_id` names that key."""
        return blake2b(data, key=self._key, digest_size=CODE_BYTES).digest()

    def is_code(self, data: bytes, code: bytes, key_id: bytes) -> bool:
        """Whether `code` is that of `data` under the key with this id, which has to be in force."""
        key = self._by_id.get(key_id)
        return key is not None and hmac.compare_digest(
            blake2b(data, key=key, digest_size=CODE_BYTES).digest(), code
        )

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether a key in force signed `data` for this purpose."""
        key = self._by_id.get(signature[:ID_BYTES])
        return key is not None and hmac.compare_digest(
            blake2b(data, key=key, digest_size=TAG_BYTES).digest(), signature[ID_BYTES:]
        )


class Keys:
    """The keyring in force. `refresh` about once a second; one thread owns it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = mark(path)  # through the links by which orchestrators exchange a mounted secret
        self._ring = read_ring(path)
        self._signing: Key | None = None
        self._seals: list[Seal] = []
        #: Why the file was refused, if it was: the one before is in force.
        self.error: str | None = None
        self._choose()

    def seal(self, purpose: Purpose, *, retired: bool = False) -> Seal:
        """A seal for `purpose`, kept up to date. With `retired` it verifies what retired keys signed, too."""
        made = Seal(purpose, retired=retired)
        assert self._signing is not None
        made.take(self._ring, self._signing)
        self._seals.append(made)
        return made

    @property
    def signing(self) -> str:
        """The id of the key that signs."""
        assert self._signing is not None
        return self._signing.id

    @property
    def identity(self) -> bytes:
        """The key under which event identities are hashed. It stays for as long as states do."""
        return _identity(self._ring)

    def refresh(self) -> None:
        """Read the file again if it changed, and sign with the key whose time has come."""
        seen = mark(self.path)
        if seen != self._seen:
            self._seen = seen
            try:
                ring = read_ring(self.path)
                if ring.identity != self._ring.identity:
                    raise KeyringError(
                        "TOLLGATE_KEYS_FILE: the identity is another one: states would count events twice; "
                        "restore it, or rebuild the states (docs/security.md) and restart"
                    )
            except KeyringError as error:
                self.error = str(error)
                _log.error("a keyring was refused, the one before stays", extra={"reason": self.error})
            else:
                self.error = None
                self._ring, self._signing = ring, None
        self._choose()

    def _choose(self) -> None:
        """Sign with the newest key whose time has come (before that of any, with the oldest)."""
        now = datetime.now(UTC)
        in_force = sorted([key for key in self._ring.keys if not key.retired], key=lambda key: key.signs_from)
        newest = next((key for key in reversed(in_force) if key.signs_from <= now), in_force[0])
        if newest is not self._signing:
            self._signing = newest
            for seal in self._seals:
                seal.take(self._ring, newest)


def key_file(chosen: Settings) -> Path:
    """Where the keys of `chosen` are; raise `KeyringError` where its storage would hold them."""
    path = (chosen.keys.file or default_key_file()).absolute()
    if path.resolve().is_relative_to(chosen.home.absolute().resolve()):
        raise KeyringError(
            f"TOLLGATE_KEYS_FILE: {path} lies in TOLLGATE_HOME, whose writers the keys are to be kept from; "
            "name a file elsewhere"
        )
    return path


def open_keys(chosen: Settings) -> Keys:
    """The keys of `chosen`. Without a file that was named or is required one is made at the first start."""
    path = key_file(chosen)
    if chosen.keys.file is None and not path.exists():
        if chosen.keys.required:
            raise KeyringError(
                "TOLLGATE_KEYS_FILE: is not set, and TOLLGATE_KEYS_REQUIRED forbids to make keys here: hosts "
                "that made their own would not trust each other"
            )
        make_ring(path)
    return Keys(path)


def open_identity(chosen: Settings) -> bytes:
    """The key of event identity, for who rebuilds states; a keyring with it alone will do."""
    path = key_file(chosen)
    if path.exists():
        return _identity(read_ring(path, signing=False))
    return open_keys(chosen).identity


def _identity(ring: Ring) -> bytes:
    return derived(bytes.fromhex(ring.identity), "identity")


# -- the command ---------------------------------------------------------------------------------


def _rotate(path: Path, minutes: float) -> str:
    now = datetime.now(UTC).replace(microsecond=0)
    key = new_key(now + timedelta(minutes=minutes))
    change_ring(path, lambda ring: msgspec.structs.replace(ring, keys=(*ring.keys, key)))
    return f"{key.id} signs from {key.signs_from:%Y-%m-%d %H:%M:%S} UTC; give the file to every host before"


def _retire(path: Path, name: str) -> str:
    def change(ring: Ring) -> Ring:
        if name not in [key.id for key in ring.keys]:
            raise KeyringError(f"there is no key {name} in {path}")
        if name == Keys(path).signing:
            raise KeyringError(f"{name} signs: rotate first")
        changed = [msgspec.structs.replace(key, retired=key.retired or key.id == name) for key in ring.keys]
        return msgspec.structs.replace(ring, keys=tuple(changed))

    change_ring(path, change)
    return f"{name} verifies nothing any more but entries of the decision log"


def _listed(path: Path) -> str:
    signing = Keys(path).signing
    lines = []
    for key in read_ring(path).keys:
        state = "retired" if key.retired else "signs" if key.id == signing else "verifies"
        if state == "verifies" and key.signs_from.timestamp() > time.time():
            state = f"signs from {key.signs_from:%Y-%m-%d %H:%M:%S}"
        lines.append(f"{key.id}  made {key.made:%Y-%m-%d %H:%M:%S}  {state}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the deployment's keys, rotate them, retire one, or list their ids."""
    parser = argparse.ArgumentParser(prog="python -m stores.keys", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("new", help="make a keyring where there is none")
    rotating = commands.add_parser("rotate", help="add a key; the newest signs, all verify")
    rotating.add_argument(
        "--in", dest="minutes", type=float, default=0.0, metavar="MINUTES",
        help="sign with it only then: by that time every host has to have the file (default: at once)",
    )  # fmt: skip
    commands.add_parser("retire", help="let a key verify nothing any more").add_argument("id")
    commands.add_parser(
        "identity", help="write a keyring without keys to FILE, for jobs that rebuild states and sign nothing"
    ).add_argument("file", type=Path)
    commands.add_parser("list", help="ids, never secrets")
    chosen = parser.parse_args(arguments)
    try:
        path = key_file(settings())
        if chosen.command == "new":
            if path.exists():
                raise KeyringError(f"{path} is there already: rotate adds a key")
            make_ring(path)
            print(f"{path}: made, for this user alone")
        elif chosen.command == "rotate":
            print(_rotate(path, chosen.minutes))
        elif chosen.command == "retire":
            print(_retire(path, chosen.id))
        elif chosen.command == "identity":
            copy_identity(path, chosen.file)
            print(f"{chosen.file}: the identity of events, and no key")
        else:
            print(_listed(path))
    except KeyringError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
