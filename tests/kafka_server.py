"""Apache Kafka itself, over SASL and TLS, for the tests that need what the small broker does not have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.apache_kafka import KafkaServer, available, start_kafka
from tests.certificates import authority


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    if not available():
        pytest.skip("the jars of Apache Kafka are not here (embedded/test_tools.sh fetches them)")
    folder: Path = tmp_path_factory.mktemp("kafka")
    signer = authority(folder / "authority")
    certificate, key = signer.issue("server")
    server = start_kafka(
        folder / "server", {"tollgate": "not-in-any-log"}, certificate, key, signer.certificate
    )
    yield server
    server.kill()
