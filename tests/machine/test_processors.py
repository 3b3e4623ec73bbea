"""A processor for each worker, where there are as many: nobody gets another's, and a dead one's is free."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from machine import processors
from machine.beside import start_beside
from machine.processors import OwnProcessor, own_processor

Found = TypeVar("Found")
#: Begins a worker of so many in a thread of its own; returns where that runs and what keeps it there.
Begin = Callable[[int], tuple[set[int], OwnProcessor | None]]
_EVERY = os.sched_getaffinity(0)


def _elsewhere(call: Callable[[], Found]) -> Found:
    """What `call` returns in a thread of its own, the only one that it may move."""
    found: list[Found] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processors that there are, for these tests."""
    if len(_EVERY) < 2:
        pytest.skip("one processor is nobody's own")
    given = sorted(_EVERY)[:2]
    monkeypatch.setattr(processors, "_GIVEN", given)
    return given


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Begin]:
    held: list[OwnProcessor] = []

    def begin(workers: int) -> tuple[set[int], OwnProcessor | None]:
        taken = own_processor(tmp_path, workers)
        if taken is not None:
            held.append(taken)
        return os.sched_getaffinity(0), taken

    yield lambda workers: _elsewhere(lambda: begin(workers))
    for taken in held:
        _elsewhere(taken.close)  # it moves the thread that it is called in


def test_workers_get_different_processors_and_a_dead_ones_is_given_again(
    worker: Begin, two: list[int]
) -> None:
    places = [worker(2), worker(2)]
    assert [place for place, _ in places] == [{two[0]}, {two[1]}]
    assert worker(2) == (_EVERY, None)
    last = places[1][1]
    assert last is not None

    def end() -> set[int]:
        last.close()
        return os.sched_getaffinity(0)

    assert _elsewhere(end) == _EVERY
    assert worker(2)[0] == {two[1]}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.usefixtures("two")
def test_other_numbers_of_workers_run_where_the_kernel_sends_them(worker: Begin, workers: int) -> None:
    assert worker(workers) == (_EVERY, None)


def test_what_works_beside_a_worker_is_not_kept_to_its_processor(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[bytes]:
        os.sched_setaffinity(0, {min(_EVERY)})
        return start_beside(tmp_path, "http.server", "--bind", "127.0.0.1", "0", quiet=True)

    process = _elsewhere(start)
    try:
        assert os.sched_getaffinity(process.pid) == _EVERY
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    finally:
        process.kill()
        process.wait()
