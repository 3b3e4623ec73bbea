"""The online store's server, the embedded Valkey or the oldest Redis: a test that uses it runs on each."""

from __future__ import annotations

import pytest

from embedded.redis_server import RedisServer


@pytest.fixture(scope="module", params=["embedded_server", "oldest_server"])
def redis_server(request: pytest.FixtureRequest) -> RedisServer:
    server = request.getfixturevalue(request.param)
    assert isinstance(server, RedisServer)
    return server
