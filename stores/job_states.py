"""Which jobs run by the clock and what each did last: written by `jobs.schedule`, read by the status page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from stores.files import write_whole

#: When each job runs: cron fields, in UTC.
CRON: Final[dict[str, dict[str, str]]] = {
    "profiles": {"hour": "0,6,12,18", "minute": "20"},
    "parity": {"hour": "0,6,12,18", "minute": "45"},
    "drift": {"day_of_week": "mon", "hour": "4", "minute": "10"},
    "compact": {"hour": "*", "minute": "5"},
}


@dataclass(slots=True)
class JobState:
    """What a job did last. Times are seconds since 1970 UTC, 0 for never."""

    last_start: float = 0.0
    last_success: float = 0.0
    last_seconds: float = 0.0
    failures: int = 0
    last_code: int = 0
    command: list[str] = field(default_factory=list)


def schedule_folder(home: Path) -> Path:
    """Where the scheduler keeps its locks, its logs and `state.json`."""
    return home / "schedule"


def read_states(home: Path) -> dict[str, JobState]:
    """The state of every job that ever ran for this home."""
    path = schedule_folder(home) / "state.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    return {name: JobState(**values) for name, values in content.items()}


def write_states(home: Path, states: Mapping[str, JobState]) -> None:
    """Replace the states of all jobs."""
    folder = schedule_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(
        folder / "state.json", json.dumps({name: asdict(state) for name, state in states.items()}, indent=1)
    )


def overdue(cron: dict[str, str], state: JobState | None, now: datetime) -> bool:
    """Whether a run at these times was due between the last success and `now`.

    A job that never ran is not overdue: its first run comes when it is due.
    """
    from apscheduler.triggers.cron import CronTrigger

    if state is None or not state.last_success:
        return False
    last = datetime.fromtimestamp(state.last_success, UTC)
    following = CronTrigger(timezone=UTC, **cron).get_next_fire_time(None, last + timedelta(seconds=1))
    return following is not None and following <= now
