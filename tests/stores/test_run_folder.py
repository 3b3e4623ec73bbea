"""One host's own folder: private, shared by its processes, refused to another host meanwhile."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stores.run_folder import RunFolderError, default_run_folder, host_id, open_run_folder
from stores.settings import REPOSITORY

OPEN = """
import sys, pathlib
from stores.run_folder import open_run_folder, RunFolderError
try:
    open_run_folder(pathlib.Path(sys.argv[1]))
except RunFolderError as error:
    sys.exit(str(error))
print("held", flush=True)
sys.stdin.readline()
"""

#: In a pid namespace of its own: another host, as a container is.
ELSEWHERE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def holder(folder: Path, *before: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-c", OPEN, str(folder)], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def namespaces_can_be_made() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*ELSEWHERE, "true"], capture_output=True).returncode == 0
    )


def test_the_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = open_run_folder(tmp_path / "run")
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    readable = tmp_path / "readable"
    readable.mkdir(mode=0o755)
    assert stat.S_IMODE(open_run_folder(readable).stat().st_mode) == 0o700


def test_a_folder_that_others_may_write_or_chose_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("open", "link", "file", "file/below"):
        with pytest.raises(RunFolderError, match="TOLLGATE_RUN"):
            open_run_folder(tmp_path / name)


def test_processes_of_one_host_that_start_together_all_hold_it(tmp_path: Path) -> None:
    processes = [holder(tmp_path / "run") for _ in range(6)]
    said = [process.communicate("\n", timeout=60) for process in processes]
    assert [out for out, _ in said] == ["held\n"] * 6, said
    assert (tmp_path / "run" / "host").read_text() == host_id()


@pytest.mark.skipif(not namespaces_can_be_made(), reason="the kernel grants no namespaces here")
def test_two_hosts_never_hold_one_folder_at_a_time(tmp_path: Path) -> None:
    first = holder(tmp_path / "run", *ELSEWHERE)
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    with pytest.raises(
        RunFolderError, match="in use by another host; every host needs a run folder of its own"
    ):
        open_run_folder(tmp_path / "run")
    first.communicate("\n", timeout=30)
    open_run_folder(tmp_path / "run")  # its own now
    second = holder(tmp_path / "run", *ELSEWHERE)
    assert "in use by another host" in second.communicate("\n", timeout=30)[1]


def test_the_default_is_another_folder_for_another_home_and_user_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    one, other = default_run_folder(tmp_path / "a"), default_run_folder(tmp_path / "b")
    assert one != other and one.parent == other.parent == tmp_path / "tollgate"
    assert stat.S_IMODE(open_run_folder(one).parent.stat().st_mode) == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_run_folder(tmp_path).parent == tmp_path / f"tollgate-{os.getuid()}"
