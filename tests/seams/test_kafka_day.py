"""A small day of payments through Apache Kafka over SASL and TLS, with every fault of a large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.apache_kafka import available
from benchmarks.kafka_day import WRONG, day


@pytest.mark.slow
def test_a_day_with_declines_retries_copies_and_kills_loses_and_doubles_nothing(home: Path) -> None:
    if not available():
        pytest.skip("the jars of Apache Kafka are not here (embedded/test_tools.sh fetches them)")
    found = day(600, seed=2)
    assert {name: found[name] for name in WRONG} == dict.fromkeys(WRONG, 0)
    assert found["payments"] == found["predictions"] == found["replayed"] == 600
    assert found["kills"] == 5
    assert found["outcomes"]["declined"] > 20
    assert found["features_compared"] > 10_000
