"""Two hosts with one shared home, both under load: each counts what was sent to it, to the last request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.two_hosts import BULK_SIZE, HOSTS, measure, namespaces
from embedded.redis_server import RedisServer
from tests.bentos.running import save_model


@pytest.mark.slow
@pytest.mark.skipif(not namespaces(), reason="a namespace of processes takes root and util-linux's unshare")
def test_each_of_two_hosts_counts_what_was_sent_to_it(tmp_path: Path, redis_server: RedisServer) -> None:
    home = tmp_path / "home"
    save_model(home, "first", trees=5)
    (home / "deployment.json").write_text(json.dumps({"champion": "first"}))
    found = measure(home, f"redis://127.0.0.1:{redis_server.port}/14", rate=500, seconds=4)
    assert found["holds"], found
    for name in HOSTS:
        host = found["hosts"][name]
        assert host["sent"] == {"single": 2_000, "bulk": 20}
        assert host["counted"] == host["counted_later"] == host["answered"]
        assert (
            host["statuses"]["200"]
            == host["answered"]["decisions"] - (BULK_SIZE - 1) * host["counted"]["bulk_requests"]
        )
        assert host["unanswered"] == 0
