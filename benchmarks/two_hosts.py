"""`make two-hosts`: two scoring hosts with one home, each at 500 requests a second -> results/two_hosts.json.

Hosts are containers: each has a process 1 and counts its other processes from there, and what they share
is a volume. Two namespaces of processes on one folder are all that this takes. Each host has two workers and
is sent single and bulk requests by a schedule (an open loop); afterwards its `/metrics` must say what was
sent to it, to the last request. The run fails if any differs or went without an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.serving_bench import PROJECT, bulk_requests, requests_for, say
from benchmarks.serving_data import build_model, fill_store
from benchmarks.serving_load import Load, at_rate
from benchmarks.serving_services import Running, start
from embedded.processes import stop_on_sigterm
from embedded.redis_server import start_redis
from stores.settings import settings

HOSTS: Final = ("one", "two")
WORKERS: Final = 2
#: Bulk requests beside the single ones: so many a second, of so many transactions.
BULK_RATE: Final = 5
BULK_SIZE: Final = 3
_UNSHARE: Final = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
_DECISIONS: Final = re.compile(r"^tollgate_decisions_total\{.*\} (\S+)$", re.MULTILINE)
_BULK: Final = re.compile(
    r'^bentoml_service_request_total\{endpoint="/v1/score/batch".*\} (\S+)$', re.MULTILINE
)


def namespaces() -> bool:
    """Whether this machine lets us make namespaces of processes."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def counted(host: Running) -> dict[str, int]:
    """Decisions, and what BentoML counted of bulk requests, by the host's `/metrics`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{host.port}/metrics", timeout=10) as response:
        text = response.read().decode()
    decisions, bulk = (sum(map(float, each.findall(text))) for each in (_DECISIONS, _BULK))
    return {"decisions": round(decisions), "bulk_requests": round(bulk)}


def measure(home: Path, redis_url: str, *, rate: int, seconds: float) -> dict[str, Any]:
    """Both hosts on `home` (which holds a model) at `rate` each; what was sent, answered and counted."""
    with ExitStack() as running:
        hosts = []
        for name in HOSTS:
            say(f"starting host {name}")
            host = start(
                "tollgate", home, redis_url, wrapper=_UNSHARE, wait=120, TOLLGATE_SERVE_WORKERS=str(WORKERS)
            )
            running.callback(host.stop)
            hosts.append(host)
        before = [counted(host) for host in hosts]
        say(f"{rate} requests a second to each for {seconds:g} s")
        loads = uvloop.run(_send([host.port for host in hosts], rate, seconds))
        found: dict[str, dict[str, Any]] = {}
        for name, host, began, (single, bulk) in zip(HOSTS, hosts, before, loads, strict=True):
            sent = {
                "decisions": single.statuses[200] + BULK_SIZE * bulk.statuses[200],
                "bulk_requests": bulk.statuses[200],
            }
            statuses = single.statuses + bulk.statuses
            found[name] = {
                "sent": {"single": int(rate * seconds), "bulk": int(BULK_RATE * seconds)},
                "requests_per_second": round(single.rate + bulk.rate, 1),
                "statuses": {str(status): statuses[status] for status in sorted(statuses)},
                "unanswered": single.unanswered + bulk.unanswered,
                "p99_ms": single.milliseconds(99),
                "answered": sent,
                "counted": _settled(host, began, sent),
            }
        time.sleep(2)  # another snapshot of every worker changes nothing
        for name, host, began in zip(HOSTS, hosts, before, strict=True):
            again = {key: value - began[key] for key, value in counted(host).items()}
            found[name]["counted_later"] = again
            figures = found[name]["answered"]
            found[name]["difference"] = max(
                abs(seen[key] - figures[key]) for seen in (again, found[name]["counted"]) for key in figures
            )
    return {
        "rate": rate, "seconds": seconds, "workers": WORKERS, "hosts": found,
        "holds": all(not each["difference"] and not each["unanswered"] for each in found.values()),
    }  # fmt: skip


async def _send(ports: list[int], rate: int, seconds: float) -> list[tuple[Load, Load]]:
    """Single and bulk requests to each port, all by one clock."""
    made = [
        (
            at_rate(port, requests_for(port, int(rate * seconds)), rate=rate, connections=32),
            at_rate(
                port,
                list(bulk_requests(port, int(BULK_RATE * seconds), BULK_SIZE)),
                rate=BULK_RATE,
                connections=2,
            ),
        )
        for port in ports
    ]
    loads = await asyncio.gather(*(each for pair in made for each in pair))
    return list(zip(loads[::2], loads[1::2], strict=True))


def _settled(host: Running, began: dict[str, int], due: dict[str, int]) -> dict[str, int]:
    """What the host counts once that is what is due, or ten seconds later (snapshots are a second old)."""
    until = time.monotonic() + 10
    while True:
        seen = {key: value - began[key] for key, value in counted(host).items()}
        if seen == due or time.monotonic() > until:
            return seen
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.two_hosts", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--rate", type=int, default=500, help="single requests a second to each host")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    if not namespaces():
        raise SystemExit("two hosts on one machine take namespaces of processes: root and unshare")
    stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="tollgate-hosts-") as scratch:
        home = Path(scratch) / "home"
        server = start_redis(Path(scratch) / "redis")
        try:
            build_model(home)
            fill_store(server.url, PROJECT)
            result = measure(home, server.url, rate=options.rate, seconds=options.seconds)
        finally:
            server.stop()
    path = settings().results / "two_hosts.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    for name, each in result["hosts"].items():
        answered, seen = each["answered"]["decisions"], each["counted"]["decisions"]
        print(
            f"host {name}: {each['requests_per_second']:g} requests/s, {answered} decisions answered, "
            f"{seen} counted, difference {each['difference']}"
        )
    print(path)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
