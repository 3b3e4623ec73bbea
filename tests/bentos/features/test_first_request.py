"""After a worker is ready, no request waits for the compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from stores.settings import REPOSITORY
from tests.bentos.one_worker import copied


def first_requests(
    home: Path, url: str, *arguments: str, packages: Path = REPOSITORY, **environment: str
) -> dict[str, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bentos.features.first_request", str(home), url, *arguments],
        cwd=packages,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TOLLGATE_RUN": str(home / "run")} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def assert_nothing_was_compiled(found: dict[str, dict[str, int]]) -> None:
    assert found["after"] == found["before"]
    for name in ("fill_features", "fill_rows", "fill_profile", "scan"):
        counts = [count for known, count in found["after"].items() if known.endswith(f".{name}")]
        assert counts == [1], name


def test_no_request_compiles_in_a_fresh_worker(store: Path, url: str, tmp_path: Path) -> None:
    assert_nothing_was_compiled(first_requests(copied(store, tmp_path), url))


def test_no_request_compiles_where_nothing_can_be_kept(store: Path, url: str, tmp_path: Path) -> None:
    assert_nothing_was_compiled(first_requests(copied(store, tmp_path), url, "nowhere"))
