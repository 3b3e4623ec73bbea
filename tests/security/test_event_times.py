"""What a caller can do with the event time that it states (H5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bentos.log.decision_files import convert_all
from bentos.log.decision_log import DecisionLog
from stores.keys import open_keys
from stores.settings import load_settings
from tests.bentos.log.test_decision_log import row


@pytest.mark.finding("H5", "high", "one bulk of 200 payments, each of another hour, made 190 parquet files")
def test_event_times_of_many_years_make_one_file_of_decisions(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, open_keys(load_settings()).seal("log"))
    first = datetime(2001, 5, 31, tzinfo=UTC)
    times = [first + timedelta(days=47 * number, hours=number) for number in range(190)]
    log.append([row(f"t{place}", event_time=time.isoformat()) for place, time in enumerate(times)])
    log.close()
    assert convert_all(tmp_path) == 190
    assert len(list((tmp_path / "decisions").rglob("*.parquet"))) == 1
