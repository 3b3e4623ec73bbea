"""What of BentoML and uvicorn is used without being documented: look at it again when they move.

The lane and the bounds of HTTP (`bentos/api/score_lane.py`, `bounded_http.py`) are a subclass of a protocol
that is uvicorn's own affair. When a version here changes: read the changes of the named file, run
tests/bentos/api and tests/security against it, then write the new version down.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pytest
from circus.sockets import CircusSocket
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


@pytest.mark.parametrize(
    ("package", "read_with", "look_at"),
    [
        ("uvicorn", "0.54.0", "uvicorn/protocols/http/httptools_impl.py, uvicorn/config.py (Config.load)"),
        ("httptools", "0.9.0", "httptools/parser/parser.pyx: errors of callbacks, should_upgrade, trailers"),
        ("bentoml", "1.4.39", "_bentoml_impl/worker/service.py (to_asgi, uvicorn.Config), server/app.py"),
        ("kantoku", "0.18.3", "circus/sockets.py, circus/process.py: so_reuseport (decision 0011)"),
    ],
)
def test_the_server_is_the_version_that_was_read(package: str, read_with: str, look_at: str) -> None:
    assert version(package) == read_with, f"{package} has moved: look at {look_at}"


def test_what_is_overridden_and_what_is_relied_on_is_there() -> None:
    overridden = (
        "connection_made", "connection_lost", "data_received", "on_message_begin", "on_header", "on_headers_complete",
        "on_body", "on_message_complete", "on_response_complete", "resume_writing", "shutdown",
        "_unset_keepalive_if_required",
    )  # fmt: skip
    assert [name for name in overridden if not hasattr(HttpToolsProtocol, name)] == []
    source = inspect.getsource(httptools_impl)
    for attribute in (
        "self.cycle",
        "self.pipeline",
        "self.flow",
        "self.server_state",
        "self.expect_100_continue",
    ):
        assert f"{attribute} =" in source or f"{attribute}:" in source, attribute
    cycle = inspect.getsource(RequestResponseCycle.__init__)
    for attribute in ("keep_alive", "response_complete", "response_started"):
        assert f"self.{attribute} =" in cycle
    assert HTTP_PROTOCOLS["auto"] == "uvicorn.protocols.http.auto:AutoHTTPProtocol"
    assert inspect.signature(CircusSocket).parameters["so_reuseport"].default is False
