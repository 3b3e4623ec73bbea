"""The flow's memory in huge pages.

States are many small objects, touched in no order: with pages of 4 KiB a touch often has to find
its page anew, which on a virtual machine is a walk through two sets of tables. Python's
allocator takes memory in pieces too small for the kernel to give huge pages by itself, so a thread
asks it every few seconds to gather what is filled (`MADV_COLLAPSE`, Linux 6.1). Where the kernel has
no such thing, or none to give, the memory stays as it is.

What it costs to gather comes at once, and what it saves over hours. So the thread works while a
processor would be idle otherwise; where none is, as in the backlog of a flow with a process for each
core, it waits for that, within bounds.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from machine.spare_time import Patience

_log = logging.getLogger("tollgate.stream")

_PAGE: Final = 4096
_HUGE: Final = 2 << 20
_MADV_COLLAPSE: Final = 25
#: A piece is gathered once so many of its small pages are in use: the rest is memory it takes more.
_MOSTLY: Final = _HUGE // _PAGE * 3 // 4
_EVERY_S: Final = 2.0
#: How long it waits for an idle processor.
_PATIENCE_S: Final = 60.0
#: The more pieces there are, the later they are looked at again: looking takes microseconds for each.
_PIECES_A_SECOND: Final = 100
#: The next attempt, once the kernel had no huge page for anything.
_REFUSED_S: Final = 300.0
#: After each piece that took the kernel longer than this, the flow goes on for as long (seconds).
_WORK_S: Final = 0.0005


def use_huge_pages() -> None:
    """Gather this process's memory in huge pages, from now on."""
    if Path("/sys/kernel/mm/transparent_hugepage/enabled").exists():
        threading.Thread(target=_keep_gathering, name="pages", daemon=True).start()


def _keep_gathering() -> None:
    wait, patience = _EVERY_S, Patience(_PATIENCE_S)
    while True:
        time.sleep(wait)
        if not patience.over():
            continue
        gathered, refused = gather()
        wait = max(_EVERY_S, gathered / _PIECES_A_SECOND)
        if refused and not gathered:
            wait = _REFUSED_S
            _log.info("the kernel has no huge pages to give: the flow goes on without, for now")


def gather() -> tuple[int, int]:
    """Gather what is filled; how many pieces are in huge pages then, and how many the kernel refused."""
    libc = ctypes.CDLL(None)
    gathered = refused = 0
    used = ctypes.create_string_buffer(_HUGE // _PAGE)
    for at in _pieces():
        piece = ctypes.c_void_p(at), ctypes.c_size_t(_HUGE)
        # A residency byte per page; an error means that the memory is gone.
        if libc.mincore(*piece, used) or used.raw.count(1) < _MOSTLY:
            continue
        began = time.perf_counter()
        if libc.madvise(*piece, _MADV_COLLAPSE):
            refused += 1
        else:
            gathered += 1
        took = time.perf_counter() - began
        if took > _WORK_S:
            time.sleep(took)
    return gathered, refused


def _pieces() -> Iterator[int]:
    """Addresses of this process's own memory at which a huge page can lie."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, _, _, inode, *name = line.split()
        if access == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            begin, end = (int(address, 16) for address in span.split("-"))
            yield from range(-(-begin // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE)
