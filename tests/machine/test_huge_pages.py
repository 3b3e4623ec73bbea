"""The flow's memory in huge pages, where this kernel has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stores.settings import REPOSITORY

_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_FILL_AND_GATHER = """
from machine.huge_pages import gather

def huge_kilobytes():
    with open("/proc/self/smaps_rollup") as file:
        return [int(line.split()[1]) for line in file if line.startswith("AnonHugePages")][0]

filled = [number.to_bytes(200, "little") for number in range(200_000)]
before = huge_kilobytes()
gathered, refused = gather()
print(before, huge_kilobytes(), gathered, refused)
assert all(int.from_bytes(content, "little") == number for number, content in enumerate(filled))
"""


def kernel() -> tuple[int, ...]:
    release = Path("/proc/sys/kernel/osrelease").read_text().split("-")[0]
    return tuple(int(part) for part in release.split(".")[:2])


@pytest.mark.skipif(
    not _ENABLED.exists() or "[never]" in _ENABLED.read_text() or kernel() < (6, 1),
    reason="this kernel gathers no huge pages on demand",
)
def test_filled_memory_is_gathered_and_keeps_what_it_holds() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FILL_AND_GATHER], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    before, after, gathered, _ = (int(number) for number in done.stdout.split())
    # 200,000 values of 233 bytes are 45 MiB, partly in pieces of memory that are too small.
    assert gathered >= 5
    assert after - before >= 5 * 2048
