"""Every page in a real browser, at 1280 pixels: drawn, not empty, not wider than the window."""

from __future__ import annotations

import struct
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
from monitoring.screens import WIDTH, BrowserError, browser, drawn, picture
from monitoring.status import status_page
from tests.monitoring.made_days import rows, write

MakeDecisions = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    try:
        browser()
    except BrowserError as error:
        pytest.skip(str(error))


def colours(png: Path) -> int:
    """How many different bytes the picture's pixels hold: an empty page has next to none."""
    data = png.read_bytes()
    at, parts = 8, b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            parts += data[at + 8 : at + 8 + length]
        at += 12 + length
    return len(set(zlib.decompress(parts)))


def looked_at(page: Path, tmp_path: Path) -> str:
    """Picture and measure the page; return the document as the browser built it."""
    assert colours(picture(page, tmp_path / f"{page.stem}.png", 1600)) > 40, f"{page.name} looks empty"
    built, width = drawn(page)
    assert width <= WIDTH, f"{page.name} is wider than the window"
    return built


@pytest.mark.slow
def test_every_page_is_drawn_and_fits(home: Path, make_decisions: MakeDecisions, tmp_path: Path) -> None:
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
        assert expected in looked_at(page, tmp_path), f"{page.name} lacks {expected}"
