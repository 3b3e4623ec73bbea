"""What numba compiled is kept, and never used for a program that has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from machine import code_folder
from machine.compiled import compiled, signatures
from stores.settings import REPOSITORY

LOOPS = """
from machine.compiled import compiled
from layout import WIDTH

@compiled
def area(height):
    return WIDTH * height

if __name__ == "__main__":
    print(area(3), sum(area.stats.cache_hits.values()))
"""


def run(folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "loops.py"],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY)} | environment,
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


def test_code_that_was_kept_beside_its_module_is_brought_to_the_folder_that_may_be_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "loops.py").write_text(LOOPS)
    (tmp_path / "layout.py").write_text("WIDTH = 2\n")
    assert run(tmp_path) == "6 0"
    folder = tmp_path / "kept"
    assert run(tmp_path, TOLLGATE_MACHINE_CODE_FOLDER=str(folder)) == "6 1"
    assert {path.suffix for path in folder.glob("*/*")} == {".nbi", ".nbc"}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    assert not code_folder._usable(folder)
    folder.chmod(0o700)
    assert code_folder._usable(folder)


def test_how_many_kinds_of_arguments_there_is_code_for_is_told() -> None:
    @compiled
    def doubled(value: float) -> float:
        return value * 2

    def known() -> int:
        return signatures()[
            f"{__name__}.test_how_many_kinds_of_arguments_there_is_code_for_is_told.<locals>.doubled"
        ]

    before = known()
    doubled(1)
    doubled(2)
    doubled(1.5)
    assert (before, known()) == (0, 2)
