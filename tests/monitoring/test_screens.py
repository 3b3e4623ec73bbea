"""Every page in a real browser, at 1280 pixels: drawn, not empty, not wider than the window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from monitoring.drift.report import drift_report
from monitoring.gates.run import run_gate
from monitoring.page import write as write_page
from monitoring.parity.comparison import compare
from monitoring.parity.report import write_report
from monitoring.status.page import status_page
from stores.settings import settings
from tests.monitoring.looking import looked_at, need_browser
from tests.monitoring.made_days import rows, write

MakeDecisions = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    need_browser()


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
