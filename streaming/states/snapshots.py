"""The version of what the flow keeps in its recovery store, and the refusal of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Raised whenever the layout of a snapshot changes.
SNAPSHOT_VERSION: Final = 8


def recovery_folder(folder: Path) -> Path:
    """Where a flow that keeps its things in `folder` has its recovery store."""
    return folder / "recovery"


class SnapshotError(RuntimeError):
    """A recovery snapshot that this program cannot continue from; the text says what to do."""


def check_version(step: str, version: object) -> None:
    """Raise `SnapshotError` unless `version` is one that this program can read."""
    if version != SNAPSHOT_VERSION:
        raise SnapshotError(
            f"the {step} snapshot has version {version!r}, this program reads version {SNAPSHOT_VERSION}: "
            "start the program that wrote it, or move the stream/ folder of TOLLGATE_HOME away, rebuild "
            "the states by the velocity backfill and send them with `python -m streaming.states.seed`"
        )


def missing_file(name: str, folder: str) -> SnapshotError:
    """The error for the file `name`, which a snapshot rests on and `folder` does not hold whole."""
    return SnapshotError(
        f"{name}, which the recovery snapshot names, is not whole in {folder}: every process of the flow "
        "must see the same stream/ folder; if it was deleted, move stream/ away and seed the states"
    )


def damaged_file(name: str) -> SnapshotError:
    """The error for a file that does not have the digest which the signed snapshot gives it."""
    return SnapshotError(
        f"{name} is damaged, or was changed by somebody else, and is not loaded: move stream/ away and seed "
        "the states"
    )
