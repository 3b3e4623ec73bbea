"""Work that can wait does so while the processors are busy, within bounds."""

from __future__ import annotations

import pytest

from machine import spare_time
from machine.spare_time import Patience, enough


def test_work_waits_for_an_idle_processor_but_not_for_ever() -> None:
    assert enough(spare=0.9, waited=2.0, patience=60.0)
    assert not enough(spare=0.0, waited=58.0, patience=60.0)
    assert enough(spare=0.0, waited=60.0, patience=60.0)


def test_it_is_asked_how_idle_the_processors_were_since_the_last_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = idle = 1000.0
    monkeypatch.setattr(spare_time, "idle_seconds", lambda: idle)
    monkeypatch.setattr("time.monotonic", lambda: now)
    patience = Patience(5.0)
    begun = []
    for idle_for in (0.5, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.3):
        now, idle = now + 1.0, idle + idle_for
        begun.append(patience.over())
    assert begun == [True, False, False, False, False, True, False, True]
