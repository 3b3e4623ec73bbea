"""What a page looks like in a real browser: drawn, not empty, not wider than the window."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from monitoring.screens import WIDTH, BrowserError, browser, drawn, picture


def need_browser() -> None:
    """Skip the test where there is no Chromium."""
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
