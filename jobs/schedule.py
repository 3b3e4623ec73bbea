"""The hourly, 6-hour and weekly runs on one machine: `python -m jobs.schedule`.

    profiles  00, 06, 12, 18 UTC, after the cut's lag   python -m jobs.materialize --cut ...
    parity    00:45, 06:45, 12:45, 18:45 UTC            python -m jobs.velocity, over the last 6 hours
    drift     Monday 04:10 UTC                          python -m monitoring.drift --week <last week>
    compact   every hour, at 05                         python -m streaming.ingest.compact

Each run is a process of its own. A run that was missed while this was not running is caught up
once, at start. A job never overlaps itself, not even from another process: it holds a lock file.
What happened last is in `<home>/schedule/state.json` and, for Prometheus, on the metrics port; of several
hosts' runs the state database holds lock and state.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from jobs.materialize import newest_cut
from monitoring import gauges
from monitoring.decisions import week_name
from stores.job_states import CRON, JobState, overdue, schedule_folder
from stores.settings import settings
from stores.state import Files, StateAway, open_state
from stores.state import State as Kept

#: Longest that a run may take before it is ended.
LONGEST: Final = timedelta(hours=5)
METRICS_PORT: Final = 9465
#: How often, and how many seconds apart, a run that is due asks for a state database that is away.
STATE_TRIES: Final = 60
STATE_PAUSE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """A run: its cron times (UTC), and the command for a run that was due at a moment."""

    name: str
    cron: dict[str, str]
    command: Callable[[datetime], list[str]]


def _profiles(due: datetime) -> list[str]:
    return ["jobs.materialize", "--cut", newest_cut(due).isoformat()]


def _parity(due: datetime) -> list[str]:
    return ["jobs.velocity", "--until", newest_cut(due).isoformat()]


def _drift(due: datetime) -> list[str]:
    return ["monitoring.drift", "--week", week_name(due - timedelta(days=7))]


def _compact(due: datetime) -> list[str]:
    return ["streaming.ingest.compact"]


JOBS: Final = (
    Job("profiles", CRON["profiles"], _profiles),
    Job("parity", CRON["parity"], _parity),
    Job("drift", CRON["drift"], _drift),
    Job("compact", CRON["compact"], _compact),
)


class State:
    """The states of all jobs, where this platform keeps them (`stores.state`)."""

    def __init__(self, home: Path, kept: Kept | None = None) -> None:
        self._kept = Files(home) if kept is None else kept
        self.folder = schedule_folder(home)
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[str, JobState]:
        """The state of every job that ever ran here."""
        return self._kept.jobs()

    def write(self, name: str, state: JobState) -> None:
        """Replace one job's state, and the gauges made from all of them."""
        self._kept.keep_job(name, state)
        gauges.publish("schedule", exposition(self.read()))

    def running(self, name: str) -> AbstractContextManager[bool]:
        """Hold the job's lock; False if another process, of whichever host, holds it."""
        return self._kept.running(name)


def exposition(states: dict[str, JobState]) -> str:
    """The states as Prometheus text."""
    rows = [({"job_name": name}, state) for name, state in sorted(states.items())]
    return (
        gauges.text(
            "tollgate_job_last_success_timestamp_seconds",
            "When the run last succeeded",
            [(n, s.last_success) for n, s in rows],
        )
        + gauges.text(
            "tollgate_job_last_duration_seconds",
            "How long the last run took",
            [(n, s.last_seconds) for n, s in rows],
        )
        + gauges.text(
            "tollgate_job_last_exit_code",
            "Exit code of the last run",
            [(n, float(s.last_code)) for n, s in rows],
        )
        + gauges.text(
            "tollgate_job_failures_total", "Runs that failed", [(n, float(s.failures)) for n, s in rows]
        ).replace("tollgate_job_failures_total gauge", "tollgate_job_failures_total counter")
    )


def run_job(job: Job, state: State, *, due: datetime, say: Callable[[str], None] = print) -> int | None:
    """Run one job in a process of its own; its exit code, or None if it is running already."""
    with state.running(job.name) as free:
        if not free:
            say(f"{job.name}: still running, this run is left out")
            return None
        known = state.read().get(job.name, JobState())
        known.command = job.command(due)
        known.last_start = time.time()
        log = state.folder / f"{job.name}.log"
        say(f"{job.name}: python -m {' '.join(known.command)}")
        with log.open("w") as output:
            try:
                code = subprocess.run(
                    [sys.executable, "-m", *known.command], stdout=output, stderr=subprocess.STDOUT,
                    check=False, timeout=LONGEST.total_seconds(),
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = 124
        known.last_seconds = time.time() - known.last_start
        known.last_code = code
        if code == 0:
            known.last_success = time.time()
        else:
            known.failures += 1
        state.write(job.name, known)
        say(
            f"{job.name}: {'done' if code == 0 else f'failed with code {code}, see {log}'} in {known.last_seconds:.0f} s"
        )
        return code


def _run_due(job: Job, state: State, due: datetime) -> None:
    """Run a job that is due; while the state database is away, wait for it as long as a run may take to begin."""
    for _ in range(STATE_TRIES):
        try:
            run_job(job, state, due=due, say=lambda text: print(text, flush=True))
            return
        except StateAway as error:
            print(f"{job.name}: {error}; tried again in {STATE_PAUSE_S:.0f} s", flush=True)
            time.sleep(STATE_PAUSE_S)
    print(f"{job.name}: the state database stayed away; this run is left out", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until interrupted, or one job with `--once`."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.schedule", description="the hourly, 6-hour and weekly runs"
    )
    parser.add_argument("--once", choices=[job.name for job in JOBS], help="run one job now and end")
    parser.add_argument("--port", type=int, default=METRICS_PORT, help="port of the metrics, 0 for none")
    parser.add_argument("--host", default="127.0.0.1", help="address of the metrics (default: loopback)")
    parser.add_argument("--metrics-only", action="store_true", help="run nothing, serve what other runs left")
    chosen = parser.parse_args(arguments)
    if chosen.metrics_only:
        serve(chosen.port, chosen.host)
        while True:
            time.sleep(3600)
    try:
        state = State(settings().home, open_state(settings()))
        if chosen.once:
            job = next(job for job in JOBS if job.name == chosen.once)
            return run_job(job, state, due=datetime.now(UTC)) or 0
        serve(chosen.port, chosen.host)
        _run(state)
    except StateAway as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def serve(port: int, host: str) -> None:
    """Answer Prometheus on `port` with the gauges of all runs; 0 does nothing."""
    from prometheus_client import CollectorRegistry, start_http_server

    if port:
        registry = CollectorRegistry()
        registry.register(gauges.FolderCollector())
        start_http_server(port, addr=host, registry=registry)


def _run(state: State) -> None:
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.blocking import BlockingScheduler
    from apscheduler.triggers.cron import CronTrigger

    # One thread: the runs share the machine, so they queue rather than compete.
    scheduler = BlockingScheduler(executors={"default": ThreadPoolExecutor(1)}, timezone=UTC)
    known = state.read()
    now = datetime.now(UTC)
    for job in JOBS:
        late = overdue(job.cron, known.get(job.name), now)
        options = {"next_run_time": now} if late else {}
        scheduler.add_job(
            lambda job=job: _run_due(job, state, datetime.now(UTC)),
            CronTrigger(timezone=UTC, **job.cron), id=job.name, coalesce=True, max_instances=1,
            misfire_grace_time=None, **options,
        )  # fmt: skip
        print(f"{job.name}: {'overdue, runs now' if late else 'runs at ' + str(job.cron)}", flush=True)
    try:
        scheduler.start()
    except KeyboardInterrupt:
        scheduler.shutdown(wait=False)


if __name__ == "__main__":
    raise SystemExit(main())
