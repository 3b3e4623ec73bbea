"""A process's number is used again; its identity is not."""

from __future__ import annotations

import os
import subprocess
import sys

from machine.process_identity import alive, process_identity


def test_a_process_keeps_its_identity_and_loses_it_when_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process_identity(child.pid)
    assert identity == process_identity(child.pid)
    assert identity is not None
    assert alive(identity)
    child.communicate()
    assert not alive(identity)
    assert process_identity(child.pid) is None


def test_another_process_under_the_same_number_is_another_one() -> None:
    mine = process_identity(os.getpid())
    assert mine is not None
    number, _, tick = mine.partition("-")
    assert (int(number), alive(mine)) == (os.getpid(), True)
    assert not alive(f"{number}-{int(tick) - 1}")
