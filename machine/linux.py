"""Calls that only Linux has, each with what happens where it is missing.

The rest of the code asks here and runs everywhere: on macOS a decision log is synced whole instead of
its data alone, a process stays on every processor, and memory that cannot be measured counts as 0.
"""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PR_SET_TIMERSLACK: Final = 29


def sync_data(descriptor: int) -> None:
    """Have the disk keep a file's bytes through a power loss (`fdatasync`; elsewhere `fsync`). Blocks."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def processors() -> list[int]:
    """The numbers of the processors that this process may run on; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def keep_to(process: int, numbers: list[int]) -> None:
    """Let a process (0: the calling thread) run on these processors only, if there is such a call."""
    if numbers and hasattr(os, "sched_setaffinity"):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(process, numbers)


def idle_seconds() -> float:
    """How long this machine's processors have been idle, all together; elsewhere as if one always were."""
    try:
        with (_PROC / "stat").open() as file:
            _, _, _, _, idle, waiting, *_ = file.readline().split()
    except OSError:
        return time.monotonic()
    return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")


def set_timer_slack(nanoseconds: int) -> bool:
    """How late this thread may wake from a sleep; whether the system could be told."""
    with suppress(AttributeError):
        return not ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(nanoseconds), 0, 0, 0)
    return False


def has_ended(process: int) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    with suppress(OSError):
        return (_PROC / str(process) / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return False


def tree_memory_mib() -> float:
    """Proportional memory of this process and its descendants now, in MiB; 0 where it cannot be known.

    Shared pages count once over all who share them (PSS), so that forked workers are not
    counted in full for each.
    """
    try:
        entries = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
        mine = {int((_PROC / "self").resolve().name)}
    except (OSError, ValueError):
        return 0.0
    parents: dict[int, int] = {}
    for process in entries:
        with suppress(OSError):  # it ended meanwhile
            parents[process] = int((_PROC / str(process) / "stat").read_text().rsplit(")", 1)[1].split()[1])
    grew = True
    while grew:
        children = {process for process, parent in parents.items() if parent in mine} - mine
        grew = bool(children)
        mine |= children
    total = 0
    for process in mine:
        with suppress(OSError):
            rollup = (_PROC / str(process) / "smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) for line in rollup if line.startswith("Pss:")), 0)
    return total / 1024
