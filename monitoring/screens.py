"""Pictures of the pages that a run has left, for the README: `python -m monitoring.screens`.

Taken in headless Chromium at 1280 pixels, from the newest model card, the newest drift report, the gates'
Data Docs and the status page in ``results/``, into ``docs/images``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stores.settings import REPOSITORY, settings

WIDTH: Final = 1280
HEIGHT: Final = 1000
#: What is pictured, and where a run leaves it.
PAGES: Final = {
    "drift": "drift/*/drift*.html",
    "card": "models/*/card.html",
    "gates": "gates/index.html",
    "status": "status.html",
}
_QUIET: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--virtual-time-budget=6000",
)  # fmt: skip


class BrowserError(RuntimeError):
    """There is no browser, or it drew nothing; the text says which."""


def browser() -> str:
    """The Chromium of this machine; BrowserError without one."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise BrowserError("Chromium is not installed (Debian: apt-get install chromium)")
    return found


def picture(page: Path, target: Path, height: int = HEIGHT) -> Path:
    """What the top of `page` looks like, as a PNG of `WIDTH` by `height` pixels at `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _run(page, f"--window-size={WIDTH},{height}", f"--screenshot={target}")
    if not target.exists():
        raise BrowserError(f"the browser drew nothing of {page.name}")
    return target


def drawn(page: Path) -> tuple[str, int]:
    """The document that scripts have made of `page`, and how many pixels wide it wants to be."""
    with tempfile.TemporaryDirectory() as folder:
        # a twin of the page that writes its own width into the title
        twin = Path(folder) / page.name
        script = "<script>addEventListener('load',()=>document.title='width '+document.documentElement.scrollWidth)</script>"
        text = page.read_text(encoding="utf-8")
        twin.write_text(text.replace("</head>", script + "</head>", 1), encoding="utf-8")
        built = _run(twin, f"--window-size={WIDTH},{HEIGHT}", "--dump-dom")
    width = re.search(r"<title>width (\d+)", built)
    if width is None:
        raise BrowserError(f"the browser could not measure {page.name}")
    return built, int(width.group(1))


def _run(page: Path, *options: str) -> str:
    with tempfile.TemporaryDirectory() as profile:
        command = [browser(), *_QUIET, f"--user-data-dir={profile}", *options, page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise BrowserError(f"the browser failed on {page.name}: {done.stderr.strip()[-200:]}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Picture every page that is there; 1 if one is missing."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.screens", description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "images")
    chosen = parser.parse_args(arguments)
    missing = []
    for name, pattern in PAGES.items():
        found = sorted(settings().results.glob(pattern), key=lambda path: path.stat().st_mtime)
        if not found:
            missing.append(name)
            continue
        print(picture(found[-1], chosen.out / f"{name}.png"))
    if missing:
        print(
            f"no page yet for {', '.join(missing)}: run `make demo` and `make status` first", file=sys.stderr
        )
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
