"""Two hosts with one shared home: each counts what was sent to it, to the last request.

Hosts are containers: each has a process 1, and counts its other processes from there. Two namespaces of
processes are all that this takes; the home, as on a shared volume, is the same folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from embedded.redis_server import RedisServer, free_port
from tests.bentos.running import save_model, transaction_json, wait_for

_UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def _namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True).returncode == 0


@dataclass
class Host:
    name: str
    url: str
    process: subprocess.Popen[bytes]

    def sums(self) -> tuple[float, float]:
        """Decisions, and what BentoML counted of bulk requests, by `/metrics`."""
        text = httpx.get(self.url + "/metrics").text
        decisions = re.findall(r"^tollgate_decisions_total\{.*\} (\S+)$", text, re.MULTILINE)
        bulk = re.findall(
            r'^bentoml_service_request_total\{endpoint="/v1/score/batch".*\} (\S+)$', text, re.MULTILINE
        )
        return sum(map(float, decisions)), sum(map(float, bulk))


@contextmanager
def host(name: str, home: Path, redis_url: str) -> Iterator[Host]:
    port, log = free_port(), home / f"{name}.log"
    variables = {key: value for key, value in os.environ.items() if key != "TOLLGATE_RUN"} | {
        "TOLLGATE_HOME": str(home), "TOLLGATE_REDIS_URL": redis_url, "TOLLGATE_SERVE_WORKERS": "2",
        "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "TZ": "UTC",
    }  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_UNSHARE, str(Path(sys.executable).with_name("bentoml")), "serve", "bentos.service:FraudScorer",
             "--host", "127.0.0.1", "--port", str(port)],
            stdout=output, stderr=subprocess.STDOUT, env=variables, start_new_session=True,
        )  # fmt: skip
    try:
        found = Host(name, f"http://127.0.0.1:{port}", process)

        def ready() -> bool:
            try:
                return httpx.get(found.url + "/readyz").status_code == 200
            except httpx.TransportError:
                return False

        assert wait_for(ready, 120), log.read_text()[-3000:]
        yield found
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _send(to: Host, first: int, number: int, bulk: int) -> None:
    with httpx.Client() as client:
        for place in range(first, first + number):
            body = transaction_json(transaction_id=f"{to.name}-{place}")
            assert client.post(to.url + "/v1/score", json=body).status_code == 200
        for place in range(bulk):
            items = [transaction_json(transaction_id=f"{to.name}-{first}-{place}-{n}") for n in range(3)]
            assert client.post(to.url + "/v1/score/batch", json=items).status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(not _namespaces(), reason="a namespace of processes takes root and util-linux's unshare")
def test_each_of_two_hosts_counts_what_was_sent_to_it(tmp_path: Path, redis_server: RedisServer) -> None:
    home = tmp_path / "home"
    save_model(home, "first", trees=5)
    (home / "deployment.json").write_text(json.dumps({"champion": "first"}))
    url = f"redis://127.0.0.1:{redis_server.port}/14"
    sent = {"one": 4 * 160, "two": 4 * 90}
    with ExitStack() as running, ThreadPoolExecutor(8) as pool:
        hosts = [running.enter_context(host(name, home, url)) for name in sent]
        jobs = [
            pool.submit(_send, each, part * sent[each.name] // 4, sent[each.name] // 4, 5)
            for each in hosts
            for part in range(4)
        ]
        for job in jobs:
            job.result()
        for each in hosts:
            due = (sent[each.name] + 4 * 5 * 3, 4 * 5)
            assert wait_for(lambda each=each, due=due: each.sums() == due, 10), (each.sums(), due)  # type: ignore[misc]
        time.sleep(2)  # another snapshot of every worker changes nothing
        assert [each.sums() for each in hosts] == [(sent[each.name] + 60, 20) for each in hosts]
