"""Bytewax pickles; here it reads only what this deployment pickled itself.

Recovery rows, and items between the processes of a flow, go through Python's `pickle`: whoever
may change a row, or speak on the flow's port, could run code in it. While a flow runs, Bytewax
finds another module under that name (it imports it when it first needs it), which signs what it
pickles under a key that neither the store nor the network has, and loads nothing that was not signed.

What is left: somebody with the store can put back rows that were signed earlier, and somebody with
the port can disturb the processes' progress and stop the flow, but not speak for it.
"""

from __future__ import annotations

import logging
import pickle
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from stores.key_file import ID_BYTES
from stores.keys import SIGNATURE_BYTES, Keys, Seal
from streaming import metrics
from streaming.states.snapshots import SnapshotError

_log = logging.getLogger(__name__)
_DOMAIN: Final = b"pickle:"
_REFUSED: Final = "a pickle that no key in force signed was not loaded"
#: Seconds between two looks at the keyring.
_LOOK_S: Final = 1.0


def seal_pickle(seal: Seal, data: bytes) -> bytes:
    """Pickled `data` behind its signature."""
    return seal.sign(_DOMAIN + data) + data


def open_pickle(seal: Seal, sealed: bytes) -> bytes:
    """The pickled bytes; raise `SnapshotError` where no key in force signed them."""
    data = bytes(sealed[SIGNATURE_BYTES:])
    if not seal.verifies(_DOMAIN + data, bytes(sealed[:SIGNATURE_BYTES])):
        metrics.UNVERIFIED.labels("snapshot").inc()
        _log.error(_REFUSED)  # Bytewax' panic may not say why
        raise SnapshotError(_REFUSED)
    return data


class _SealedPickle(ModuleType):
    """`pickle` for Bytewax; everything but `dumps` and `loads` is the real module's."""

    def __init__(self, keys: Keys) -> None:
        super().__init__("pickle", __doc__)
        self._keys = keys
        self._seal = keys.seal("recovery")
        self._looked = time.monotonic()

    def dumps(self, value: object, *arguments: Any, **named: Any) -> bytes:
        now = time.monotonic()
        if now - self._looked > _LOOK_S:  # for keys that rotate
            self._looked = now
            self._keys.refresh()
        return seal_pickle(self._seal, pickle.dumps(value, *arguments, **named))

    def loads(self, sealed: bytes, *arguments: Any, **named: Any) -> Any:
        return pickle.loads(open_pickle(self._seal, sealed), *arguments, **named)  # noqa: S301  signed by us

    def __getattr__(self, name: str) -> Any:
        return getattr(pickle, name)


@contextmanager
def sealed_pickles(keys: Keys) -> Iterator[None]:
    """Within, Bytewax signs what it pickles. Enter it before this process runs its first flow."""
    before = sys.modules["pickle"]
    sys.modules["pickle"] = _SealedPickle(keys)
    try:
        yield
    finally:
        sys.modules["pickle"] = before


def check_recovery(recovery: Path, seal: Seal) -> None:
    """Hold every row of the recovery store to its signature before Bytewax opens it; raise `SnapshotError`
    that names the first one that fails.

    Rows of a key before are signed anew, so that it can be retired once the flow has been restarted.
    """
    for part in sorted(recovery.glob("*.sqlite3")):
        try:
            with closing(sqlite3.connect(part)) as store, store:
                for row, step, key, sealed in store.execute(
                    "SELECT rowid, step_id, state_key, ser_change FROM snaps WHERE ser_change IS NOT NULL"
                ).fetchall():
                    data = _row(seal, part, f"{step} {key}", sealed)
                    if sealed[:ID_BYTES] != seal.key_id:
                        again = seal_pickle(seal, data)
                        store.execute("UPDATE snaps SET ser_change = ? WHERE rowid = ?", (again, row))
        except sqlite3.DatabaseError as error:
            raise SnapshotError(f"{part.name} is not a recovery store that can be read: {error}") from None


def _row(seal: Seal, part: Path, name: str, sealed: bytes) -> bytes:
    try:
        return open_pickle(seal, sealed)
    except SnapshotError:
        raise SnapshotError(
            f"{part.name}: no key in force signed the snapshot {name!r}, and it is not loaded: somebody else "
            "wrote it, or its key was retired; restore the keyring, or move the stream/ folder of "
            "TOLLGATE_HOME away and seed the states"
        ) from None
