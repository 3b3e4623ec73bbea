"""A contained program ends within its bounds, and says how."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from machine.contained import Contained, Outcome, python
from stores.settings import REPOSITORY

BOUNDED = (
    "from machine.contained import bound_this_process\n"
    "bound_this_process(memory=300_000_000, seconds=2, file_size=1_000_000)\n"
)


def run(code: str, *, seconds: float = 60.0) -> Outcome:
    return Contained(python("-c", code), seconds=seconds, environment={"PYTHONPATH": str(REPOSITORY)}).wait()


def test_a_program_that_ends_well_leaves_nothing_to_say() -> None:
    assert run("pass") == Outcome(None, "")


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("raise SystemExit(3)", "ended with status 3"),
        ("import os; os.abort()", "was ended by SIGABRT"),
        ("import os; os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
        (BOUNDED + "while True: pass", "was ended by SIGKILL"),
        (BOUNDED + "x = bytearray(1_000_000_000)", "ended with status 1"),
        (BOUNDED + "open('/dev/shm/tollgate-test', 'wb').write(bytes(2_000_000))", "ended with status 1"),
    ],
)
def test_how_a_program_ends_is_said_in_words(code: str, ended: str) -> None:
    try:
        assert run(code).ended == ended
    finally:
        Path("/dev/shm/tollgate-test").unlink(missing_ok=True)


def test_a_program_that_waits_for_ever_is_killed_with_what_it_started() -> None:
    code = """
import subprocess, sys, time
subprocess.Popen(["sleep", "987"])
print("begun", file=sys.stderr, flush=True)
time.sleep(600)
"""
    running = Contained(python("-c", code), seconds=3.0, environment={"PATH": os.environ["PATH"]})
    assert running.poll() is None
    assert running.wait() == Outcome("took longer than 3 seconds", "begun")
    with pytest.raises(ProcessLookupError):
        while True:  # until init has taken the orphan away
            os.killpg(running.pid, 0)
            time.sleep(0.01)


def test_only_the_end_of_long_complaints_is_kept() -> None:
    said = run("import sys; sys.stderr.write('x' * 100_000 + 'the end')").complaints
    assert len(said) == 2000
    assert said.endswith("xthe end")


def test_nothing_of_this_environment_reaches_the_program_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert run("import os; raise SystemExit('SECRET' in os.environ)").ended is None
