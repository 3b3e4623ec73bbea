"""Exchange files and state with the other hosts: `python -m jobs.exchange --role serve|stream|jobs`.

It runs beside the parts of a host (in Kubernetes a sidecar), looks every `TOLLGATE_SHIP_SECONDS`, and goes on
when the object store or the database come back. `--once` does one look, before a service starts or before a
host is given up; it fails if that cannot be done.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final, get_args

from jobs.exchange.host import Host, MissingModel, Role
from monitoring import gauges
from stores.commits import CommitError
from stores.places import PlaceAway
from stores.settings import settings
from stores.state import StateAway

_LONGEST_PAUSE_S: Final = 10.0
#: There, below the home, once a look came to its end: what a part of the host may wait for.
LOOKED: Final = "exchange/looked"


def exposition(host: Host, now: float) -> str:
    """How far behind the store is, as Prometheus text."""
    return gauges.text(
        "tollgate_exchange_lag_seconds",
        "Age of what this host has made and not shipped: what it would take along if it were lost now",
        [({"kind": kind}, now - at) for kind, at in sorted(host.shipped_at.items())],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until asked to end, then look once more; or `--once`."""
    parser = argparse.ArgumentParser(prog="python -m jobs.exchange", description=__doc__.split("\n\n")[0])
    parser.add_argument("--role", choices=get_args(Role), required=True, help="what this host does")
    parser.add_argument("--once", action="store_true", help="one look, and fail if it cannot be done")
    parser.add_argument("--port", type=int, default=0, help="port of the metrics, 0 for none")
    parser.add_argument("--host", default="127.0.0.1", help="address of the metrics (default: loopback)")
    chosen = parser.parse_args(arguments)
    configured = settings()
    try:
        host = Host(configured, chosen.role)
        if chosen.once:
            host.look()
            return 0
    except (PlaceAway, StateAway, MissingModel, CommitError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if chosen.port:
        from jobs.schedule import serve

        serve(chosen.port, chosen.host)
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ending.append(number))
    signal.signal(signal.SIGINT, lambda number, frame: ending.append(number))
    (host.home / LOOKED).parent.mkdir(parents=True, exist_ok=True)
    (host.home / LOOKED).unlink(missing_ok=True)
    pause, said = configured.cluster.ship_seconds, ""
    while True:
        last = bool(ending)
        trouble = _look(host)
        if trouble != said:
            print(trouble or "in step again", file=sys.stderr, flush=True)
        said = trouble
        gauges.publish("exchange", exposition(host, time.time()))
        if not trouble:
            (host.home / LOOKED).touch()
        if last:
            return 1 if trouble else 0
        pause = min(2 * pause, _LONGEST_PAUSE_S) if trouble else configured.cluster.ship_seconds
        until = time.monotonic() + pause
        while not ending and time.monotonic() < until:
            time.sleep(min(0.1, pause))


def _look(host: Host) -> str:
    """One look; what stood in its way, in words."""
    try:
        host.look()
    except (PlaceAway, StateAway, MissingModel, CommitError) as error:
        return str(error)
    except OSError as error:  # this host's disk: what is not shipped stays where it is
        return f"this host's disk: {error.strerror or error}"
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
