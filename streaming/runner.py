"""Running a Bytewax flow: recovery store, one or several processes, and a clean stop.

Each process has one worker (two threads of one interpreter are slower than one). The recovery
store has a part for each process of the first start, since every part is synced at every snapshot;
it is read by any number of processes, so a restart may change how many there are.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from bytewax._bytewax import cluster_main  # what bytewax.run calls, with a finer epoch than whole seconds
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir

from fraud.state.observation import use_identity
from machine.garbage import collect_seldom
from machine.timers import waking_seldom
from stores.keys import open_keys
from stores.settings import Settings
from streaming import metrics
from streaming.sealed_pickles import check_recovery, sealed_pickles
from streaming.states.snapshots import recovery_folder
from streaming.taking_up import TakingUp

#: Seconds that one thread may hold the interpreter while others want it.
_TURN_S: Final = 0.001
_STOP: Final = (signal.SIGTERM, signal.SIGINT)
#: How long processes may take to finish their batch and flush before they are killed.
_STOP_PATIENCE_S: Final = 30
_UNFENCED: Final = (
    "error: TOLLGATE_STREAM_PORTS_FENCED: the processes of a flow talk over loopback ports that ask nobody "
    "who he is, so any user of this host could stop the flow there. Run one process; or run them where "
    "nobody else reaches the ports (a pod, a container, a network namespace, a host without other users) "
    "and say so with TOLLGATE_STREAM_PORTS_FENCED=true (docs/security.md)"
)
#: Kept open for the life of the process: the interpreter holds only the descriptor.
_open_sockets: Final[list[socket.socket]] = []
_log = logging.getLogger(__name__)


def run(
    module: str, configured: Settings, build: Callable[[threading.Event], Dataflow], *, folder: Path,
    processes: int, process_id: int | None, forwarded: list[str],
) -> int:  # fmt: skip
    """Run the flow that `build` returns; `module` is started again for each of several processes.

    Returns the exit status: 0 after a clean stop or at the end of the log.
    """
    recovery = prepare_recovery(folder, processes)
    keys = open_keys(configured)
    use_identity(keys.identity)
    if process_id is None:  # of several processes, the one that starts them
        check_recovery(recovery, keys.seal("recovery"))
    if processes > 1 and not configured.stream.ports_fenced:
        raise SystemExit(_UNFENCED)
    stopping = _stop_event()
    taking_up = TakingUp(configured, stopping)
    if process_id is None and "--drain" not in forwarded:
        taking_up.start()
    if processes > 1 and process_id is None:
        status = _run_cluster(module, processes, forwarded, stopping)
        if status == 0:
            taking_up.start_again()
        return status
    addresses = _addresses(configured, processes) if processes > 1 else []
    port = configured.stream.metrics_port and configured.stream.metrics_port + (process_id or 0)
    metrics.serve(port, configured.stream.metrics_host)
    if configured.machine.garbage:
        collect_seldom()
    sys.setswitchinterval(_TURN_S)
    _log.info("the flow starts (process %s of %s)", (process_id or 0) + 1, processes)
    flow = build(stopping)
    with sealed_pickles(keys), waking_seldom(configured.machine.timers):
        cluster_main(  # type: ignore[no-untyped-call]
            flow, addresses, process_id or 0,
            epoch_interval=timedelta(seconds=configured.stream.snapshot_seconds),
            recovery_config=RecoveryConfig(recovery),  # type: ignore[no-untyped-call]
        )  # fmt: skip
    _log.info("the flow has ended")
    taking_up.start_again()
    return 0


def prepare_recovery(folder: Path, parts: int) -> Path:
    """The recovery store under `folder`, created with so many parts if this is the first start."""
    recovery = recovery_folder(folder)
    if not any(recovery.glob("*.sqlite3")):
        recovery.mkdir(mode=0o700, parents=True, exist_ok=True)
        init_db_dir(recovery, parts)  # type: ignore[no-untyped-call]
    return recovery


def _stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set.

    Python runs signal handlers in the main thread between bytecodes, but that thread is deep in
    Bytewax; the interpreter's wakeup descriptor is written at once, in whichever thread.
    """
    stopping = threading.Event()
    heard, wakeup = socket.socketpair()
    wakeup.setblocking(False)

    def listen() -> None:
        heard.recv(1)
        _log.info("asked to stop: the flow finishes its batch")
        stopping.set()

    for number in _STOP:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wakeup.fileno())
    threading.Thread(target=listen, name="stop", daemon=True).start()
    _open_sockets.append(wakeup)
    return stopping


def _addresses(configured: Settings, processes: int) -> list[str]:
    return [f"127.0.0.1:{configured.stream.port + index}" for index in range(processes)]


def _run_cluster(module: str, processes: int, forwarded: list[str], stopping: threading.Event) -> int:
    """Start one process per worker, pass signals on, and end all of them if one fails."""
    command = [sys.executable, "-m", module, "--processes", str(processes)]
    children = [
        subprocess.Popen([*command, "--process-id", str(index), *forwarded]) for index in range(processes)
    ]
    kill_at: float | None = None
    while any(child.poll() is None for child in children):
        asked = stopping.wait(0.1)
        failed = any(child.poll() not in (None, 0) for child in children)
        if (asked or failed) and kill_at is None:
            for child in children:
                child.terminate()
            kill_at = time.monotonic() + _STOP_PATIENCE_S
        elif kill_at is not None and time.monotonic() > kill_at:
            for child in children:
                child.kill()
    return max((abs(child.returncode) for child in children), default=0)
