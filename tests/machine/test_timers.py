"""Which threads of a flow wake late, and which on time."""

from __future__ import annotations

import ctypes
import sys
import threading

import pytest

from machine.timers import wake_on_time, waking_seldom

_PR_GET_TIMERSLACK = 30


def slack() -> int:
    """Nanoseconds that this thread's sleeps may last longer than asked for."""
    return ctypes.CDLL(None).prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="timer slack is Linux'")
def test_the_main_thread_wakes_late_and_a_worker_that_begins_meanwhile_on_time() -> None:
    found: list[int] = []

    def worker() -> None:
        found.append(slack())
        wake_on_time()
        found.append(slack())

    before = slack()
    with waking_seldom():
        late = slack()
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
    assert late >= 1_000 * before
    assert found == [late, before]
    assert slack() == before
