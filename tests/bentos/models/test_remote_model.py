"""The model on a real server of the Open Inference Protocol: equal scores, and an answer without it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from bentos.models.model import Model
from bentos.models.remote_model import RemoteModel, RemoteModelError
from embedded.redis_server import RedisServer, free_port
from fraud.features.feature_list import VECTOR
from stores.models import read_model_files
from stores.served_models import served_name
from stores.settings import REPOSITORY, settings
from tests.bentos.running import save_model, start_service, store_features, transaction, transaction_json
from training.inference_export import write_repository

#: Made by embedded/test_tools.sh: MLServer's pins do not go with ours, so it has packages of its own.
MLSERVER = REPOSITORY / ".venv" / "tools" / "mlserver" / "bin" / "mlserver"
pytestmark = pytest.mark.skipif(not MLSERVER.exists(), reason="no MLServer: run embedded/test_tools.sh")
CALIBRATION = {"kind": "isotonic", "x": [0.0, 0.3, 1.0], "y": [0.0, 0.6, 1.0]}


@dataclass
class Served:
    """A model in a home's store, and a server that has its export."""

    home: Path
    model: Path
    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    home, port = tmp_path / "home", free_port()
    model = save_model(home, "one", calibration=CALIBRATION)
    monkeypatch.setenv("TOLLGATE_HOME", str(home))
    settings.cache_clear()
    write_repository("one", tmp_path / "repository")
    settings.cache_clear()
    variables = {
        "MLSERVER_HOST": "127.0.0.1", "MLSERVER_HTTP_PORT": str(port), "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(free_port()), "MLSERVER_PARALLEL_WORKERS": "0",
    }  # fmt: skip
    with (tmp_path / "mlserver.log").open("wb") as log:
        process = subprocess.Popen(
            [str(MLSERVER), "start", str(tmp_path / "repository")], env=os.environ | variables,
            cwd=tmp_path, stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "mlserver.log").read_text()
        try:
            if httpx.get(f"{url}/v2/models/{served_name('one')}/ready").status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    yield Served(home, model, url, process)
    process.terminate()
    process.wait(20)


def test_the_server_scores_as_the_model_in_this_process_does_and_the_service_asks_it(
    served: Served, redis_server: RedisServer
) -> None:
    random = np.random.default_rng(2)
    rows = random.lognormal(6, 3, size=(40, len(VECTOR)))
    rows[random.random(rows.shape) < 0.3] = np.nan
    model = Model(read_model_files(served.model))

    async def ask() -> None:
        remote = RemoteModel(served.url, 5_000)
        np.testing.assert_array_equal(await remote.raw("one", rows), model.raw(rows))
        np.testing.assert_array_equal(await remote.raw("one", rows[:1]), model.raw(rows[:1]))
        with pytest.raises(RemoteModelError, match="404"):
            await remote.raw("two", rows)
        await remote.close()

    asyncio.run(ask())
    service = start_service(
        served.home, f"redis://127.0.0.1:{redis_server.port}/5", TOLLGATE_FEAST_PROJECT="remote",
        TOLLGATE_REMOTE_MODEL_URL=served.url, TOLLGATE_REMOTE_MODEL_TIMEOUT_MS="5000",
    )  # fmt: skip
    try:
        store_features(service.redis, "remote", transaction())
        answers = []
        for name in ("asked", "alone"):
            answer = httpx.post(f"{service.url}/v1/score", json=transaction_json(transaction_id=name))
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())
            served.process.terminate()
            served.process.wait(20)
        asked, alone = answers
        # The second was scored by the model in the service itself, and says so.
        assert asked["degraded"] == [] and alone["degraded"] == ["model:local"]
        assert asked["fraud_score"] == alone["fraud_score"] and asked["model_version"] == "one"
    finally:
        service.stop()
