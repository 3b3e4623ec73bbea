"""The flow on Apache Kafka as it is run: passwords, TLS, foreign producers, and what real topics hold."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.apache_kafka import KafkaServer, consumer_groups
from fraud.contract.transaction import encode_transaction
from stores.event_log import partition_of
from stores.kafka import KafkaError, client_config, keyed_hash
from stores.settings import Settings, load_settings, settings
from streaming.ingest.dead_letters import letters_folder, read_letters
from streaming.log import load
from streaming.log.kafka_source import KafkaReader
from streaming.log.publish import open_writer
from tests.kafka_server import kafka as kafka
from tests.streaming.conftest import FlowProcess


@pytest.fixture
def on_kafka(
    kafka: KafkaServer, configured: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """A topic of four partitions, of which the setting says two, and one for dead letters."""
    name = f"payments-{time.time_ns()}"
    for variable, value in kafka.environment(tmp_path / "secret").items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("TOLLGATE_TOPIC", name)
    monkeypatch.setenv("TOLLGATE_KAFKA_GROUP", name)
    monkeypatch.setenv("TOLLGATE_KAFKA_LETTERS_TOPIC", f"letters-{name}")
    settings.cache_clear()
    kafka.create_topic(name, 4)
    kafka.create_topic(f"letters-{name}", 1)
    yield settings()
    settings.cache_clear()


def rows(configured: Settings) -> list[str]:
    found = ds.dataset(configured.lake / "transactions", format="parquet").to_table(["transaction_id"])
    return sorted(found.column("transaction_id").to_pylist())


def test_the_partition_of_a_key_is_the_one_of_kafkas_own_producers(
    kafka: KafkaServer, on_kafka: Settings
) -> None:
    # From Kafka's own tests of its hash (UtilsTest.testMurmur2), without the sign.
    assert keyed_hash("foobar") == -790332482 & 0x7FFFFFFF
    assert keyed_hash("a-little-bit-longer-string") == -1486304829 & 0x7FFFFFFF
    names = [f"customer {place} ä" for place in range(200)]
    placed: dict[str, int] = {}
    producer = Producer(kafka.client() | {"partitioner": "murmur2"})
    for name in names:
        producer.produce(
            on_kafka.event_log.topic, b"{}", key=name.encode(),
            on_delivery=lambda _error, message, name=name: placed.update({name: message.partition()}),
        )  # fmt: skip
    producer.flush(30)
    assert placed == {name: partition_of(name, 4) for name in names}


def test_every_partition_is_read_and_an_event_in_two_of_them_counts_once(
    kafka: KafkaServer, on_kafka: Settings, flow: Callable[..., FlowProcess]
) -> None:
    topic = on_kafka.event_log.topic
    made = [e for e in load.events(load.Load(events=400), 4) if e.transaction is not None]
    with open_writer(on_kafka) as writer:
        for event in made:
            assert event.transaction is not None
            writer.publish(event.transaction)
    # Another producer's partitioner puts copies elsewhere, and a few new ones, which are in no other place.
    astray = [e for e in load.events(load.Load(events=40, seed=2), 4) if e.transaction is not None]
    producer = Producer(kafka.client())
    for event in made[:50] + astray:
        assert event.transaction is not None
        home = partition_of(event.transaction.customer_id, 4)
        producer.produce(topic, event.payload, partition=(home + 1) % 4)
    producer.flush(30)
    for _ in range(2):  # the second run reads what the first one sent home at its end
        flow("--drain").finish()
    assert rows(on_kafka) == sorted(e.transaction.transaction_id for e in made + astray if e.transaction)
    said = consumer_groups(kafka, on_kafka.kafka.group)
    lines = [line.split() for line in said.splitlines() if line.startswith(on_kafka.kafka.group)]
    assert len(lines) == 4, said
    assert {line[5] for line in lines} == {"0"}, said


def test_what_stands_in_real_topics_is_passed_over_or_refused_with_its_reason(
    kafka: KafkaServer, on_kafka: Settings, flow: Callable[..., FlowProcess]
) -> None:
    topic = on_kafka.event_log.topic
    good = [e.transaction for e in load.events(load.Load(events=6), 4) if e.transaction is not None]
    texts = [encode_transaction(one) for one in good]
    aborted = Producer(kafka.client() | {"transactional.id": topic})
    aborted.init_transactions(30)
    producer = Producer(kafka.client() | {"message.max.bytes": 4_000_000})

    def put(customer: str, value: bytes | None) -> None:
        producer.produce(topic, value, partition=partition_of(customer, 4))

    put(good[0].customer_id, texts[0])
    put(good[1].customer_id, None)
    put(good[1].customer_id, b"\0\0\0\0\x07" + texts[1])  # JSON with a schema registry's header
    put(good[2].customer_id, b"\0\0\0\x01\x02\x06avro")
    put(good[2].customer_id, json.dumps({"before": None, "after": json.loads(texts[2]), "op": "c"}).encode())
    put(good[3].customer_id, texts[3].replace(b",", b",\r\n") + b"\r\n")
    put(good[4].customer_id, b'{"transaction_id":"' + b"x" * 2_000_000 + b'"}')
    put(good[4].customer_id, b'{"seed":"customer","key":"c-1","state":"AAAA","signature":"AAAA"}')
    producer.flush(30)
    aborted.begin_transaction()
    for place in range(4):
        aborted.produce(topic, texts[5], partition=place)
    aborted.flush(30)
    aborted.abort_transaction(30)

    flow("--drain").finish()
    flow("--drain").finish()  # which ends: what was aborted at a partition's end is no lag
    assert rows(on_kafka) == sorted(good[place].transaction_id for place in (0, 1, 3))
    letters = [letter for _, letter in read_letters(letters_folder(on_kafka))]
    reasons = sorted(f"{letter.field} {letter.reason}" for letter in letters)
    assert len(reasons) == 4, reasons
    assert any("schema registry's header (schema 258)" in reason for reason in reasons)
    assert any("change-data envelope" in reason for reason in reasons)
    assert any(reason.startswith("(seed)") for reason in reasons)
    consumer = Consumer(kafka.client() | {"group.id": "letters"})
    consumer.assign([TopicPartition(f"letters-{topic}", 0, 0)])
    copies = consumer.consume(4, timeout=20)
    consumer.close()
    assert {json.loads(copy.value() or b"")["reason"] for copy in copies} == {
        letter.reason for letter in letters
    }
    assert {copy.key() for copy in copies} == {
        f"{topic}-{letter.partition}-{letter.position}".encode() for letter in letters
    }


def test_a_reader_sees_partitions_that_came_later(kafka: KafkaServer, on_kafka: Settings) -> None:
    reader = KafkaReader(on_kafka.kafka, on_kafka.event_log.topic, 0, None, 10)
    assert reader.partitions() == 4
    kafka.add_partitions(on_kafka.event_log.topic, 6)
    deadline = time.monotonic() + 30
    while reader.partitions() != 6:
        assert time.monotonic() < deadline
    reader.close()


def test_properties_come_from_variables_and_files_and_ours_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    given = {
        "TOLLGATE_KAFKA_SASL_PASSWORD_FILE": str(secret),
        "TOLLGATE_KAFKA_PROPERTIES": '{"client.id": "gate"}',
        "TOLLGATE_KAFKA_SOCKET_KEEPALIVE_ENABLE": "true",
    }
    found = load_settings(given)
    assert client_config(found.kafka, linger_ms=2) == {
        "bootstrap.servers": "127.0.0.1:9092", "linger.ms": 2, "client.id": "gate",
        "sasl.password": "s3cret", "socket.keepalive.enable": "true",
    }  # fmt: skip
    assert "s3cret" not in repr(found)
    with pytest.raises(KafkaError, match="TOLLGATE_KAFKA_ENABLE_IDEMPOTENCE"):
        client_config(load_settings({"TOLLGATE_KAFKA_ENABLE_IDEMPOTENCE": "false"}).kafka)
    secret.unlink()
    with pytest.raises(KafkaError, match="TOLLGATE_KAFKA_SASL_PASSWORD_FILE"):
        client_config(found.kafka)
    misspelt = load_settings({"TOLLGATE_KAFKA_SECURTY_PROTOCOL": "SASL_SSL"})
    with pytest.raises(KafkaError, match="TOLLGATE_KAFKA_SECURTY_PROTOCOL"):
        KafkaReader(misspelt.kafka, "t", 0, None, 10)
