"""Every page in a real browser, at 1280 pixels: drawn, not empty, not wider than the window."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from fraud.settings import settings
from monitoring.drift import drift_report
from monitoring.gates.run import run_gate
from monitoring.page import write as write_page
from monitoring.parity import compare, write_report
from monitoring.status import status_page
from tests.monitoring.made_days import rows, write

MakeDecisions = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed: it is Debian's package of that name")
    return found


def colours(png: Path) -> int:
    """Different bytes in the picture's last rows and first rows: an empty page has next to none."""
    data = png.read_bytes()
    at, parts = 8, b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            parts += data[at + 8 : at + 8 + length]
        at += 12 + length
    return len(set(zlib.decompress(parts)))


def looked_at(browser: str, page: Path, tmp_path: Path) -> str:
    """Take the picture; return the document as the browser built it."""
    base = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=6000",
    ]
    picture = tmp_path / f"{page.stem}.png"
    options = [
        "--window-size=1280,1600",
        f"--screenshot={picture}",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    subprocess.run([*base, *options, page.as_uri()], capture_output=True, check=True, timeout=120)
    assert colours(picture) > 40, f"{page.name} looks empty"
    # a twin of the page that writes its own width into the title
    twin = tmp_path / f"twin-{page.name}"
    script = "<script>addEventListener('load',()=>document.title='width '+document.documentElement.scrollWidth)</script>"
    twin.write_text(page.read_text().replace("</head>", script + "</head>", 1))
    command = [
        *base,
        "--window-size=1280,1600",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        twin.as_uri(),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    width = re.search(r"<title>width (\d+)", built)
    assert width is not None and int(width.group(1)) <= 1280, f"{page.name} is wider than the window"
    return built


@pytest.mark.slow
def test_every_page_is_drawn_and_fits(
    browser: str, home: Path, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    out = tmp_path / "pages"
    reference = make_decisions(10_000, seed=1, days=28, start="2018-08-01").drop(
        columns=["decision", "channel"]
    )
    week = make_decisions(10_000, seed=2, amounts=1.4)
    drift = drift_report(reference, week, out, decide_at=(0.2, 0.4), labelled=week)
    table = pa.table({"transaction_id": ["a", "b"], "x": [1.0, 2.0]})
    changed = pa.table({"transaction_id": ["a", "b"], "x": [1.0, 3.0]})
    _, parity = write_report(compare(table, changed, ["x"], views={"x": ()}), out)
    bad = rows(count=1_500)
    bad["customer_id"][5] = None
    docs = run_gate("raw", write(tmp_path / "lake", bad), docs=out / "gates").docs
    status = write_page(out / "status.html", status_page(settings()))
    assert docs is not None
    validations = sorted((out / "gates" / "validations").rglob("*.html"))
    for page, expected in [
        (drift.report, "txn_amount"), (parity, "unexplained"), (status, "Pipeline"), (docs, "raw-rows"),
        (validations[-1], "customer_id"),
    ]:  # fmt: skip
        assert expected in looked_at(browser, page, tmp_path), f"{page.name} lacks {expected}"
