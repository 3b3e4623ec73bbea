"""Every command of the tutorials, word for word, in the order that they stand: what a page says it prints, it prints.

A page is one shell, as a reader would have it, in a copy of the checkout. It runs in namespaces of its own for the
network and for processes: its ports are its own, nothing is fetched, and nothing outlives the page.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from stores.settings import REPOSITORY

TUTORIALS: Final = REPOSITORY / "docs" / "tutorials"
#: In the order of the first page, which starts them all.
PAGES: Final = ("api", "data-engineer", "data-scientist", "model-owner", "operator")
#: It ends with the tests, however these end.
_UNSHARE: Final = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
)  # fmt: skip
#: A new network has a loopback that is down: SIOCSIFFLAGS with IFF_UP | IFF_RUNNING (netdevice(7)).
_LOOPBACK_UP: Final = (
    "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14x', b'lo', 0x41))"
)


@dataclass
class Block:
    """Commands of a page, with what its text says of their output."""

    commands: str
    prints: list[str] = field(default_factory=list)


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    for commands, printed in re.findall(
        r"^```bash\n(.*?)^```$|^<!-- prints: (.+?) -->$", page.read_text(), re.MULTILINE | re.DOTALL
    ):
        if commands:
            found.append(Block(commands))
        else:
            found[-1].prints.append(printed)
    return found


def run(page: str, checkout: Path) -> None:
    """Run a page in `checkout`; fail with the block that failed or did not print what the page says."""
    mark, steps = secrets.token_hex(8), blocks(TUTORIALS / f"{page}.md")
    script = "".join(f"{step.commands}echo; echo {mark}\n" for step in steps)
    shell = ["bash", "-e", "-o", "pipefail", "-c", f'{sys.executable} -c "{_LOOPBACK_UP}"\n{script}']
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TOLLGATE_", "BENTOML_", "PYTEST_", "MAKE", "MLFLOW"))
    } | {"HOME": str(checkout.parent / "home"), "PYTHONPATH": str(checkout)}
    (checkout.parent / "home").mkdir(exist_ok=True)
    log = checkout.parent / f"{page}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_UNSHARE, *shell], cwd=checkout, env=variables, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    printed = log.read_text(errors="replace").split(f"\n{mark}\n")
    reached = len(printed) - 1
    if code or reached < len(steps):
        pytest.fail(f"{page}.md: exit code {code} of\n{steps[reached].commands}\n{printed[-1][-4_000:]}")
    for step, output in zip(steps, printed, strict=False):
        for text in step.prints:
            assert text in output, (
                f"{page}.md: {text!r} is not printed by\n{step.commands}\n{output[-4_000:]}"
            )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the packages of this one, in which the first page has run."""
    if (
        None in (shutil.which("unshare"), shutil.which("setpriv"))
        or subprocess.run([*_UNSHARE, "true"], capture_output=True).returncode
    ):
        pytest.skip("this machine allows no namespaces of network and processes")
    if shutil.which("make") is None or shutil.which("curl") is None:
        pytest.skip("the tutorials' commands make and curl are not here")
    copy = tmp_path_factory.mktemp("tutorials") / "tollgate"
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(tracked, cwd=REPOSITORY, capture_output=True, text=True)
    if names.returncode:
        pytest.skip("this is no checkout: its files are not listed")
    for name in filter(None, names.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, copy / name)
    (copy / ".venv").symlink_to(sys.prefix)
    run("index", copy)
    return copy


def test_every_page_is_run_and_says_what_it_prints() -> None:
    named = {path.stem for path in TUTORIALS.glob("*.md")}
    assert named == {"index", *PAGES}
    for page in PAGES:
        assert any(block.prints for block in blocks(TUTORIALS / f"{page}.md"))
    assert re.findall(r"\]\((\S+)\.md\)", (TUTORIALS / "index.md").read_text()) == list(PAGES)


@pytest.mark.skipif("TUTORIALS" not in os.environ, reason="runs the demo and every page: make test-tutorials")
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_do_what_it_says(page: str, checkout: Path) -> None:
    run(page, checkout)
