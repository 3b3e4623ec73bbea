"""Where the calls that only Linux has are missing, everything still runs: the service, the flow, the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from stores.settings import REPOSITORY, Settings
from streaming.log.load import Load, events
from streaming.log.publish import open_writer
from tests.bentos.conftest import store, url
from tests.bentos.one_worker import copied, logged
from tests.streaming.conftest import configured
from tests.streaming.oracle import differences, plain_loop

__all__ = ["configured", "store", "url"]  # fixtures

MACHINE = """
import os
from pathlib import Path
from machine import linux, processors
from machine.spare_time import Patience
from machine.timers import wake_on_time, waking_seldom
from stores.run_folder import host_id

descriptor = os.open("synced", os.O_CREAT | os.O_WRONLY)
os.write(descriptor, b"kept")
linux.sync_data(descriptor)
with waking_seldom():
    wake_on_time()
taken = processors.own_processor(Path.cwd(), 2)
print(linux.processors(), taken, linux.set_timer_slack(50_000), linux.tree_memory_mib(),
      Patience(60).over(), linux.has_ended(os.getpid()), linux.has_ended(2**22 - 1), bool(host_id()))
"""


def elsewhere(*command: str, cwd: Path = REPOSITORY, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.machine.elsewhere", *command], cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_each_call_that_only_linux_has_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(MACHINE)
    printed = elsewhere("asks", cwd=tmp_path, PYTHONPATH=f"{REPOSITORY}{os.pathsep}{tmp_path}")
    assert printed.split() == ["[]", "None", "False", "0.0", "True", "False", "True", "True"]
    assert (tmp_path / "synced").read_bytes() == b"kept"


def test_a_worker_decides_and_logs(store: Path, url: str, tmp_path: Path) -> None:
    home = copied(store, tmp_path)
    found = json.loads(elsewhere("tests.bentos.features.first_request", str(home), url).splitlines()[-1])
    assert found["after"] == found["before"]
    decided = {row["transaction_id"] for row in logged(home)}
    assert {"new-0", "known", "foreign", "bulk-1"} <= decided
    assert "decisions converted" in elsewhere("bentos.log.decision_files", TOLLGATE_HOME=str(home))
    assert list((home / "decisions").glob("date=*/hour=*/*.parquet"))


def test_the_flow_keeps_its_states(configured: Settings) -> None:
    published = list(events(Load(1_000, customers=50, merchants=20), configured.event_log.partitions))
    with open_writer(configured) as writer:
        for event in published:
            writer.publish_raw(event.partition, event.payload)
    elsewhere("streaming.flow", "--drain")
    expected = plain_loop([event.transaction for event in published if event.transaction])
    assert expected and differences(configured, expected) == []
