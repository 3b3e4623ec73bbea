"""The cases of the event log and of operations: each is held by tests that go through the real doors.

Apache Kafka over SASL and TLS, the flow, the service and Redis as processes, Spark and Feast. A case is held
when every test named here passes, and none was skipped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from stores.settings import REPOSITORY

_KAFKA: Final = "tests/streaming/test_apache_kafka.py::"
_READ: Final = _KAFKA + "test_every_partition_is_read_and_an_event_in_two_of_them_counts_once"
_STORE: Final = (
    "tests/jobs/test_feast_operations.py::"
    "test_flushed_edited_and_mistyped_a_store_comes_back_and_runs_still_land"
)
#: The tests that hold each case, by its name.
TESTS: Final[dict[str, tuple[str, ...]]] = {
    "more_partitions_than_the_setting": (
        _READ, _KAFKA + "test_a_reader_sees_partitions_that_came_later"
    ),
    "same_event_in_two_partitions": (_READ,),
    "kafka_with_a_password": (
        _READ, _KAFKA + "test_properties_come_from_variables_and_files_and_ours_are_refused"
    ),
    "what_is_in_real_topics": (
        _KAFKA + "test_what_stands_in_real_topics_is_passed_over_or_refused_with_its_reason",
    ),
    "flushed_store": (_STORE, "tests/seams/test_restore.py"),
    "increment_to_2036": (_STORE,),
    "apply_after_an_edit": (_STORE,),
    "plain_increment_and_velocity": (_STORE,),
    "week_9": (
        "tests/monitoring/test_weeks.py::test_a_week_has_one_name_however_it_is_written",
        "tests/monitoring/test_weeks.py::test_a_week_that_there_is_not_is_refused",
    ),
    "labels_in_real_life": ("tests/seams/test_labels_in_real_life.py",),
    "expired_online": (_STORE,),
    "stopped_container": (
        "tests/bentos/api/test_departure.py", "tests/bentos/test_redis_in_trouble.py"
    ),
}  # fmt: skip
_DONE: dict[tuple[str, ...], tuple[bool, str]] = {}


def try_case(case: Mapping[str, Any], text: str) -> tuple[bool, str] | None:
    """Whether the tests of `case` pass, and what pytest says last."""
    tests = TESTS.get(case["name"])
    if tests is None:
        return None
    if tests not in _DONE:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
            cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=1_200,
        )  # fmt: skip
        last = next(
            (line for line in reversed(done.stdout.splitlines()) if re.search("passed|failed", line)), ""
        )
        held = done.returncode == 0 and "skipped" not in last
        _DONE[tests] = (
            held,
            f"{last.strip() or 'no test ran'}: " + ", ".join(name.rsplit("::", 1)[-1] for name in tests),
        )
    return _DONE[tests]
