from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from jobs.materialize import newest_cut
from jobs.schedule import JOBS, Job, State, run_job
from monitoring import gauges
from stores.job_states import JobState, overdue

MONDAY = datetime(2026, 3, 2, 7, 0, tzinfo=UTC)


def job(*command: str) -> Job:
    return Job("profiles", {"hour": "0,6,12,18", "minute": "20"}, lambda _: list(command))


def test_a_run_that_succeeds_leaves_its_time_for_prometheus(home: Path) -> None:
    state = State(home)
    assert run_job(job("timeit", "-n", "1", "pass"), state, due=MONDAY) == 0
    assert state.read()["profiles"].last_success > 0
    registry = CollectorRegistry()
    registry.register(gauges.FolderCollector())
    text = generate_latest(registry).decode()
    assert 'tollgate_job_last_success_timestamp_seconds{job_name="profiles"}' in text
    assert "tollgate_metric_files_unreadable 0.0" in text


def test_a_run_that_fails_keeps_the_last_success_and_is_counted(home: Path) -> None:
    state = State(home)
    run_job(job("timeit", "-n", "1", "pass"), state, due=MONDAY)
    before = state.read()["profiles"].last_success
    assert run_job(job("timeit", "-n", "1", "raise SystemExit(3)"), state, due=MONDAY) != 0
    after = state.read()["profiles"]
    assert (after.last_success, after.failures) == (before, 1)
    assert (
        'tollgate_job_failures_total{job_name="profiles"} 1'
        in (gauges.folder() / "schedule.prom").read_text()
    )


def test_a_run_never_overlaps_itself_even_from_another_process(home: Path) -> None:
    state = State(home)
    with state.running("profiles") as free:
        assert free
        assert run_job(job("timeit", "-n", "1", "pass"), State(home), due=MONDAY) is None
    assert run_job(job("timeit", "-n", "1", "pass"), state, due=MONDAY) == 0


@pytest.mark.parametrize(
    ("ago", "expected"),
    [(timedelta(minutes=30), False), (timedelta(hours=2), True), (timedelta(days=3), True)],
)
def test_a_missed_run_is_caught_up(ago: timedelta, expected: bool) -> None:
    # 06:20 |------ 07:00 now      a success at 06:30 is enough, one at 05:00 is not
    assert overdue(JOBS[0].cron, JobState(last_success=(MONDAY - ago).timestamp()), MONDAY) is expected


def test_a_job_that_never_ran_waits_for_its_time() -> None:
    assert not overdue(JOBS[2].cron, None, MONDAY)


def test_the_weekly_report_is_of_the_week_before() -> None:
    assert JOBS[2].command(MONDAY) == ["monitoring.drift", "--week", "2026-W09"]


def test_the_newest_cut_is_the_last_whose_lag_has_passed(home: Path) -> None:
    assert newest_cut(datetime(2026, 3, 2, 6, 14, tzinfo=UTC)) == datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
    assert newest_cut(datetime(2026, 3, 2, 6, 15, tzinfo=UTC)) == datetime(2026, 3, 2, 6, 0, tzinfo=UTC)


def test_an_unreadable_metric_file_is_left_out_and_counted(home: Path) -> None:
    gauges.publish("good", gauges.text("tollgate_test", "A test", [({}, 1.0)]))
    gauges.publish("bad", "tollgate_broken{ 1\n")
    families = {family.name: family for family in gauges.FolderCollector().collect()}
    assert families["tollgate_test"].samples[0].value == 1
    assert families["tollgate_metric_files_unreadable"].samples[0].value == 1
