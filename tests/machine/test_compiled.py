"""What numba compiled is kept, and never used for a program that has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from machine.compiled import compiled

LOOPS = """
from machine.compiled import compiled
from layout import WIDTH

@compiled
def area(height):
    return WIDTH * height

if __name__ == "__main__":
    print(area(3), sum(area.stats.cache_hits.values()))
"""


def run(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "loops.py"],
        cwd=folder,
        env={"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_constant_of_another_file_is_part_of_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text(LOOPS)
    (tmp_path / "layout.py").write_text("WIDTH = 2\n")
    assert run(tmp_path) == "6 0"
    assert run(tmp_path) == "6 1"  # by another process
    (tmp_path / "layout.py").write_text("WIDTH = 5\n")
    assert run(tmp_path) == "15 0"


def test_where_nothing_can_be_kept_the_function_works_all_the_same() -> None:
    names: dict[str, object] = {"compiled": compiled}
    exec(compile("@compiled\ndef twice(n):\n    return 2 * n\n", "nowhere.py", "exec"), names)
    assert names["twice"](21) == 42  # type: ignore[operator]
