"""The benchmark of stages times what the service calls."""

from __future__ import annotations

from benchmarks.serving_stages import Stopwatch, timed_stages
from bentos.scoring.scorer import Scorer


def test_every_stage_is_where_the_service_calls_it_and_goes_back_there() -> None:
    finish = Scorer._finish
    with timed_stages(Stopwatch()):  # raises where one is gone
        assert Scorer._finish is not finish
    assert Scorer._finish is finish
