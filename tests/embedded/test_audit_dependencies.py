"""The audit of dependencies, against an index of the test's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from embedded.audit_dependencies import main, pinned
from embedded.redis_server import free_port
from stores.settings import REPOSITORY

LOCK = "holed==1.0 \\\n    --hash=sha256:00\nsound==2.1 ; python_version < '3.12' \\\n    --hash=sha256:00\n# via x==9\n"
HOLES = [
    {"id": "PYSEC-1", "fixed_in": ["1.1"], "withdrawn": None},
    {"id": "PYSEC-2", "fixed_in": [], "withdrawn": "2026-01-01T00:00:00Z"},
]
ANSWERS = {"/holed/1.0/json": {"vulnerabilities": HOLES}, "/sound/2.1/json": {"vulnerabilities": []}}


class Index(BaseHTTPRequestHandler):
    """Answers as the JSON interface does."""

    def do_GET(self) -> None:
        answer = ANSWERS.get(self.path)
        self.send_response(404 if answer is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text(LOCK)
    return path


def test_a_known_hole_is_named_with_its_mend_and_fails(
    index: str, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(lock), "--index", index]) == 1
    said = capsys.readouterr().out
    assert "holed 1.0: PYSEC-1, fixed in 1.1" in said
    assert "PYSEC-2" not in said
    assert "1 known holes in 2 packages" in said


def test_a_package_that_the_index_does_not_know_is_said(
    index: str, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.write_text("sound==2.1\nunknown==3\n")
    assert main([str(lock), "--index", index]) == 0
    said = capsys.readouterr()
    assert "1 of 2 packages could not be asked about" in said.err
    assert "as far as could be asked" in said.out


def test_without_an_index_it_says_so_and_goes_on(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(lock), "--index", f"http://127.0.0.1:{free_port()}"]) == 0
    assert "2 of 2 packages could not be asked about" in capsys.readouterr().err


def test_every_package_of_the_locks_is_audited() -> None:
    locks = [REPOSITORY / "requirements" / name for name in ("serving.txt", "jobs.txt", "dev.txt")]
    names = {name for name, _ in pinned(locks)}
    assert {"bentoml", "feast", "pyspark", "numpy", "lightgbm"} <= names
    assert len(names) > 150
