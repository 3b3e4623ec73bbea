"""Whether the built Bento answers as the sources do -> results/bench/serving_built.json.

    python -m benchmarks.serving_built

Builds the Bento of bentofile.yaml into a temporary store, serves it from a folder that
holds no sources, and sends the same transactions to it and to the service of the sources, each
with a store of its own that holds the same features. Answers should be equal to the byte, but
for `latency_ms`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.serving_data import bodies, build_model, fill_store
from benchmarks.serving_services import start
from embedded.processes import stop_on_sigterm
from embedded.redis_server import start_redis
from stores.settings import REPOSITORY, settings

_TRANSACTIONS: Final = 200
_LATENCY: Final = re.compile(rb'"latency_ms":[0-9.e-]+')


def _ask(port: int, path: str, body: bytes) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: bytes = response.read()
    return _LATENCY.sub(b'"latency_ms":0', answer)


def _answers(name: str, root: Path, bento: str | None) -> list[bytes]:
    """One by one to /v1/score, then others in one bulk request."""
    redis_server = start_redis(root / f"redis-{name}")
    home = root / name
    home.mkdir()
    (home / "bentoml").symlink_to(root / "model" / "bentoml")
    running = None
    try:
        fill_store(redis_server.url, settings().feast.project)
        if bento is None:
            running = start("tollgate", home, redis_server.url)
        else:
            running = start("tollgate", home, redis_server.url, service=bento, folder=home)
        every = bodies(2 * _TRANSACTIONS, "built")
        answers = [_ask(running.port, "/v1/score", body) for body in every[:_TRANSACTIONS]]
        bulk = b"[" + b",".join(every[_TRANSACTIONS:]) + b"]"
        answers.append(_ask(running.port, "/v1/score/batch", bulk))
        converters = [one for one in psutil.Process(running.process.pid).children(recursive=True)
                      if "bentos.log.decision_files" in one.cmdline()]  # fmt: skip
        if not converters:
            raise RuntimeError(f"{name}: no process turns the decision log into parquet")
        return answers
    finally:
        if running is not None:
            running.stop()
        redis_server.stop()


def measure() -> dict[str, Any]:
    """How many answers were compared, and how many differ."""
    with tempfile.TemporaryDirectory(prefix="tollgate-built-") as scratch:
        root = Path(scratch)
        build_model(root / "model")
        environment = os.environ | {"BENTOML_HOME": str(root / "store"), "BENTOML_DO_NOT_TRACK": "True"}
        built = subprocess.run(
            [str(Path(sys.executable).with_name("bentoml")), "build", "--output", "tag"],
            cwd=REPOSITORY, env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        tag = built.stdout.strip().splitlines()[-1].rpartition("__tag__:")[2]
        name, _, version = tag.partition(":")
        folder = root / "store" / "bentos" / name / version
        sources = _answers("sources", root, None)
        bento = _answers("bento", root, str(folder))
        plan = _registry_plan(root / "registry", folder / "src")
    different = sum(a != b for a, b in zip(sources, bento, strict=True))
    return {"transactions": 2 * _TRANSACTIONS, "different": different, "registry_plan": plan}


def _registry_plan(home: Path, sources: Path) -> str:
    """What the Bento's own code says of a registry that the definitions were applied to."""
    home.mkdir()
    environment = os.environ | {"TOLLGATE_HOME": str(home), "TZ": "UTC"}
    apply = "from feature_repo.store import apply_definitions; apply_definitions()"
    subprocess.run(
        [sys.executable, "-c", apply], cwd=REPOSITORY, env=environment, check=True, capture_output=True
    )
    plan = subprocess.run(
        [sys.executable, "-m", "bentos.features.feature_plan"],
        cwd=sources, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return plan.stdout.strip()


def main() -> int:
    stop_on_sigterm()
    result = measure()
    path = settings().results / "bench" / "serving_built.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 1 if result["different"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
