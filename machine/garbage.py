"""Python's cyclic garbage, collected when it does not hurt.

A collection looks through everything that may be part of a cycle, to find next to nothing: requests,
states and rows have no cycles. The service freezes what its start-up made, and looks at young objects
less often: p99 at saturation fell from 160 to 18 ms. The flow collects once an hour: each automatic
collection held it up for up to a tenth of a second, every second.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_EVERY_S: Final = 3_600.0
#: New objects that are there at once before Python looks for cycles among them (its own default is 700).
_YOUNG_OBJECTS: Final = 50_000


def settle() -> None:
    """Keep what is there now out of every later collection, and make those of young objects rarer."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def collect_seldom() -> None:
    """Take collections over from the interpreter: once an hour, by a thread."""
    gc.disable()
    gc.collect()
    gc.freeze()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


@contextmanager
def without_collections() -> Iterator[None]:
    """No collections meanwhile: for work that makes many objects without cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _collect() -> None:
    while True:
        time.sleep(_EVERY_S)
        gc.unfreeze()
        gc.collect()
        gc.freeze()
