"""Python's cyclic garbage, collected once an hour.

The flow's lasting objects are states, rows and ids, all without cycles: every automatic collection
goes through the young ones for nothing, and held the flow up for up to a tenth of a second, every
second. What makes cycles is rare: connections that are opened anew, and a library's errors.
"""

from __future__ import annotations

import gc
import threading
import time
from typing import Final

_EVERY_S: Final = 3_600.0


def collect_seldom() -> None:
    """Take collections over from the interpreter."""
    gc.disable()
    gc.collect()
    gc.freeze()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    while True:
        time.sleep(_EVERY_S)
        gc.unfreeze()
        gc.collect()
        gc.freeze()
