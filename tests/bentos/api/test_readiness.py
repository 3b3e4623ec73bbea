"""Where a service has to have a model (`TOLLGATE_SERVE_NEEDS_MODEL`), it is ready only with one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from embedded.redis_server import RedisServer, free_port
from tests.bentos.running import save_model


def test_a_service_that_needs_a_model_is_ready_once_it_has_one(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    environment = os.environ | {
        "TOLLGATE_HOME": str(home), "TOLLGATE_REDIS_URL": f"redis://127.0.0.1:{redis_server.port}/13",
        "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(home / "bentoml"), "TOLLGATE_RUN": str(tmp_path / "run"),
        "TOLLGATE_SERVE_NEEDS_MODEL": "true", "TZ": "UTC",
    }  # fmt: skip
    command = [
        str(Path(sys.executable).with_name("bentoml")), "serve", "bentos.service:FraudScorer",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        without = _readiness(port, lambda found: "there is no model" in found.text)
        assert (without.status_code, without.text.split(":")[0]) == (503, "not ready")
        save_model(home, "first", trees=5)
        assert _readiness(port, lambda found: found.status_code == 200).text == "ready\n"
    finally:
        process.terminate()
        process.wait(30)


def _readiness(port: int, wanted: object) -> httpx.Response:
    """The first answer of /readyz that is the wanted one."""
    assert callable(wanted)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            found = httpx.get(f"http://127.0.0.1:{port}/readyz")
            if wanted(found):
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError("/readyz did not say so in time")
