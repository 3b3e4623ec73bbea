"""The version of what the flow keeps in its recovery store, and the refusal of another one."""

from __future__ import annotations

from typing import Final

#: Raised whenever the layout of a snapshot changes.
SNAPSHOT_VERSION: Final = 3
_READABLE: Final = (2, SNAPSHOT_VERSION)


class SnapshotError(RuntimeError):
    """A recovery snapshot that this program cannot continue from; the text says what to do."""


def check_version(step: str, version: object) -> None:
    """Raise `SnapshotError` unless `version` is one that this program can read."""
    if version not in _READABLE:
        raise SnapshotError(
            f"the {step} snapshot has version {version!r}, this program reads version {SNAPSHOT_VERSION}: "
            "start the program that wrote it, or move the stream/ folder of TOLLGATE_HOME away, rebuild "
            "the states by the velocity backfill and send them with `python -m streaming.seed`"
        )
