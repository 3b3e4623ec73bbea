"""A day of payments through Apache Kafka over SASL and TLS, with kills: `results/kafka_day.json`.

    python -m benchmarks.kafka_day [--payments 100000] [--seed 1]

Authorizations are produced as another system would (1 % are retried in another spelling, 0.5 % have a clock
that is off), scored by the scoring flow and the service, and counted by the velocity flow. 8 % are declined,
3 % reversed, 2 % refunded, by the topic of outcomes, some of them twice and some before their payment; copies
of payments stand in other partitions. The flows, the job of outcomes and the broker are killed with kill -9
under way. Then every window feature in the online store is compared with the reference aggregator over what
is spent, each payment is counted in the lake, and every payment is sent again in another spelling.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from msgspec import structs

from benchmarks.apache_kafka import KafkaServer, available, consumer_groups, start_kafka
from benchmarks.chaos_streaming import Finding, compare, environment, stored_states
from benchmarks.serving_data import build_model
from benchmarks.serving_services import start
from embedded.processes import stop_on_sigterm
from embedded.redis_server import start_redis
from fraud.contract.event import parse_event
from fraud.contract.money import decimal_amount, minor_units
from fraud.contract.transaction import Transaction, encode_transaction
from fraud.state.observation import observe_measured, use_identity
from jobs.outcomes import read_waiting
from stores.event_log import partition_of
from stores.keys import open_keys
from stores.lake import read_transactions
from stores.outcomes import Effect, spent_minor
from stores.settings import REPOSITORY, Settings, settings
from streaming.log.load import Load, events
from tests.certificates import authority
from tests.fraud.oracle import Oracle

PARTITIONS = 4
_BULK = 500


class Part:
    """A part of the platform in a process group of its own, killed and started again."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the part
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._command], cwd=REPOSITORY, start_new_session=True,
            stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end; what it says when it does not end well is raised."""
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(120):
            self._log.seek(0)
            raise SystemExit(f"{self._command}: {self._log.read()[-3000:].decode()}")

    def running(self) -> bool:
        return self._process.poll() is None


def spelt_otherwise(transaction: Transaction) -> bytes:
    """The same payment as another JSON library and another time zone write it."""
    body = json.loads(encode_transaction(transaction))
    moment = transaction.event_time.astimezone(UTC) + timedelta(hours=2)
    body["event_time"] = moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "+02:00"
    body["amount"] = str(transaction.amount.normalize()) if transaction.amount % 10 else body["amount"]
    return json.dumps(body, indent=1).encode()


def off_clock(transaction: Transaction, draw: random.Random) -> Transaction:
    return structs.replace(
        transaction, event_time=transaction.event_time - timedelta(minutes=draw.uniform(20, 110))
    )


def outcomes_of(payments: list[Transaction], draw: random.Random) -> list[dict[str, Any]]:
    """8 % declined, 3 % reversed (half of them in part), 2 % refunded in part."""
    found: list[dict[str, Any]] = []
    for one in payments:
        chance = draw.random()
        body: dict[str, Any] = {
            "transaction_id": one.transaction_id, "event_time": one.event_time.isoformat()
        }  # fmt: skip
        part = decimal_amount(max(1, one.amount_minor // 3), one.currency)
        if chance < 0.08:
            found.append(body | {"kind": "declined", "reason": "51"})
        elif chance < 0.095:
            found.append(body | {"kind": "reversed"})
        elif chance < 0.11:
            found.append(body | {"kind": "reversed", "amount": str(part), "currency": one.currency})
        elif chance < 0.13:
            found.append(
                body | {"kind": "refunded", "outcome_id": "r1", "amount": str(part), "currency": one.currency}
            )
    return found


def read_topic(server: KafkaServer, topic: str, partitions: int) -> list[bytes]:
    """Every committed record of a topic, by partition, in order."""
    consumer = Consumer(
        server.client() | {"group.id": "judge", "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition(topic, place, 0) for place in range(partitions)])
    found: dict[int, list[bytes]] = {place: [] for place in range(partitions)}
    ended: set[int] = set()
    while len(ended) < partitions:
        for message in consumer.consume(5_000, timeout=5):
            place, error = message.partition() or 0, message.error()
            if error is None:
                found[place].append(message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(place)
    consumer.close()
    return [record for place in range(partitions) for record in found[place]]


def until(what: str, reached: Any, seconds: float, parts: list[Part]) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come true in {seconds:.0f} s")
        for part in parts:
            if not part.running():
                part.stop()
        time.sleep(1)


def live(
    server: KafkaServer,
    payments: list[Transaction],
    found: dict[str, Any],
    draw: random.Random,
    undo: ExitStack,
) -> None:
    """The day itself, in four parts with a kill after each."""
    parts = [Part("streaming.flow"), Part("streaming.scoring_flow"), Part("jobs.outcomes", "follow")]
    for part in parts:
        undo.callback(part.kill)
    outcomes = outcomes_of(payments, draw)
    found["outcomes"] = dict(Counter(each["kind"] for each in outcomes))
    early = outcomes[:: max(1, len(outcomes) // 50)]  # known before their payments are
    producer = Producer(
        server.client() | {"partitioner": "murmur2_random", "enable.idempotence": True, "log_level": 0}
    )
    for body in early:
        producer.produce("outcomes", json.dumps(body).encode(), key=body["transaction_id"].encode())
    retried = copies = 0
    share = -(-len(payments) // 4)
    for quarter in range(4):
        for one in payments[quarter * share : (quarter + 1) * share]:
            key = one.customer_id.encode()
            producer.produce("authorizations", encode_transaction(one), key=key)
            if draw.random() < 0.01:
                producer.produce("authorizations", spelt_otherwise(one), key=key)
                retried += 1
            if draw.random() < 0.005:
                astray = (partition_of(one.customer_id, PARTITIONS) + 1) % PARTITIONS
                producer.produce("transactions", encode_transaction(one), partition=astray)
                copies += 1
            producer.poll(0)
            if len(producer) > 50_000:
                producer.flush()
        producer.flush()
        time.sleep(draw.uniform(3, 6))
        if quarter == 1:
            server.kill()
            server.start()
        else:
            parts[quarter % 3].kill()
            parts[quarter % 3].start()
        found["kills"] += 1
    for body in outcomes + outcomes[::10]:
        producer.produce("outcomes", json.dumps(body).encode(), key=body["transaction_id"].encode())
        producer.poll(0)
    producer.flush()
    parts[2].kill()
    parts[2].start()
    found |= {"retried": retried, "copies_in_other_partitions": copies, "kills": found["kills"] + 1}
    settled(server, payments, parts, len(outcomes))
    for part in parts:
        part.stop()


def settled(server: KafkaServer, payments: list[Transaction], parts: list[Part], outcomes: int) -> None:
    """Wait until all is scored, counted and settled."""
    import pyarrow.dataset as ds

    configured = settings()
    wanted = len({one.transaction_id for one in payments})

    def in_lake(kind: str) -> int:
        folder = configured.lake / kind
        return ds.dataset(folder, format="parquet").count_rows() if folder.is_dir() else 0

    until("all payments in the lake", lambda: in_lake("transactions") >= wanted, 1_800, parts)
    until("all outcomes in the lake", lambda: in_lake("outcomes") >= outcomes, 1_800, parts)
    until("nothing behind", lambda: _nothing_behind(server, configured), 300, parts)
    time.sleep(3)


def _nothing_behind(server: KafkaServer, configured: Settings) -> bool:
    said = consumer_groups(server, configured.kafka.group)
    lines = [line.split() for line in said.splitlines() if line.startswith(configured.kafka.group)]
    lags = [line[5] for line in lines if line[1] == "transactions"]
    return len(lags) == PARTITIONS and set(lags) == {"0"} and not read_waiting(configured.home)


def judge(server: KafkaServer, payments: list[Transaction], outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """What is wrong in the online store and in the lake."""
    effects: dict[str, list[Effect]] = {}
    for body in outcomes:
        amount = minor_units(Decimal(body["amount"]), body["currency"]) if "amount" in body else None
        effects.setdefault(body["transaction_id"], []).append(Effect(body["kind"], amount))
    oracles: dict[tuple[int, str], Oracle] = {}
    known: set[str] = set()
    newest = 0
    for record in read_topic(server, "transactions", PARTITIONS):
        if record.startswith((b'{"spent":', b'{"seed":', b'{"rewrite":')):
            continue
        transaction, event_ms, minor, _, _ = parse_event(record)
        if transaction.transaction_id in known:
            continue
        known.add(transaction.transaction_id)
        seen = observe_measured(
            transaction, event_ms, spent_minor(minor, effects.get(transaction.transaction_id, []))
        )
        newest = max(newest, event_ms)
        for place, value in enumerate(seen.ids):
            if value is not None:
                oracles.setdefault((place, value), Oracle(place)).add(seen)
    found = Finding(entities=len(oracles))
    states = stored_states(settings(), list(oracles))
    compare(found, oracles, states, newest + 1, count=True)
    rows = Counter(read_transactions(settings().lake).column("transaction_id").to_pylist())
    ids = {one.transaction_id for one in payments}
    return {
        "lost": len(ids - rows.keys()) + found.lost,
        "double_counted": rows.total() - len(rows) + found.double_counted,
        "wrong_features": found.wrong_features, "features_compared": found.features_compared,
        "entities": found.entities,
    }  # fmt: skip


def replayed(server: KafkaServer, port: int, payments: list[Transaction]) -> dict[str, int]:
    """Every payment once more, in another spelling: how many decisions differ from the published ones."""
    published: dict[str, tuple[Any, Any]] = {}
    twice = 0
    for record in read_topic(server, "predictions", PARTITIONS):
        answer = json.loads(record)
        name, said = answer["transaction_id"], (answer.get("decision"), answer.get("fraud_score"))
        twice += name in published
        published[name] = said
    different = unanswered = 0
    once = list({one.transaction_id: one for one in payments}.values())
    for at in range(0, len(once), _BULK):
        part = once[at : at + _BULK]
        raw = b"[" + b",".join(spelt_otherwise(one) for one in part) + b"]"
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/score/batch", raw, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answers = json.load(response)
        for one, answer in zip(part, answers, strict=True):
            unanswered += "decision" not in answer
            said = (answer.get("decision"), answer.get("fraud_score"))
            different += said != published.get(one.transaction_id)
    return {
        "predictions": len(published), "published_twice": twice, "replayed": len(once),
        "decisions_that_differ": different, "unanswered": unanswered,
    }  # fmt: skip


def day(payments_wanted: int, seed: int) -> dict[str, Any]:
    """Run a day, and judge it."""
    began, draw = time.monotonic(), random.Random(seed)
    start_at = (datetime.now(UTC) - timedelta(hours=25)).replace(microsecond=0)
    step = max(1, 86_400_000 // payments_wanted)
    entities = max(40, payments_wanted // 25)
    load = Load(
        payments_wanted, seed, customers=entities, merchants=entities, step_ms=step, start=start_at
    )  # fmt: skip
    payments = [event.transaction for event in events(load, PARTITIONS) if event.transaction is not None]
    payments = [off_clock(one, draw) if draw.random() < 0.005 else one for one in payments]
    found: dict[str, Any] = {"payments": len(payments), "kills": 0}
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        signer = authority(folder / "authority")
        certificate, key = signer.issue("server")
        server = start_kafka(
            folder / "kafka", {"tollgate": "of-a-rehearsal"}, certificate, key, signer.certificate
        )
        undo.callback(server.kill)
        cache = start_redis(folder / "redis", durable=True)
        undo.callback(cache.stop)
        for topic, count in (
            ("transactions", PARTITIONS), ("authorizations", PARTITIONS),
            ("predictions", PARTITIONS), ("outcomes", 2),
        ):  # fmt: skip
            server.create_topic(topic, count)
        home = folder / "home"
        variables = server.environment(folder / "secret") | {
            "TOLLGATE_HOME": str(home), "TOLLGATE_RUN": str(folder / "run"), "TOLLGATE_REDIS_URL": cache.url,
            "TOLLGATE_PARTITIONS": str(PARTITIONS), "TOLLGATE_STREAM_SNAPSHOT_SECONDS": "1",
        }  # fmt: skip
        undo.enter_context(environment(**variables))
        use_identity(open_keys(settings()).identity)
        build_model(home, trees=60, leaves=15)
        service = start("tollgate", home, cache.url, TOLLGATE_UNSIGNED_MODELS="allow")
        undo.callback(service.stop)
        undo.enter_context(environment(TOLLGATE_SCORE_URL=f"http://127.0.0.1:{service.port}"))
        outcomes_draw = random.Random(seed)
        live(server, payments, found, outcomes_draw, undo)
        found |= judge(server, payments, outcomes_of(payments, random.Random(seed)))
        found |= replayed(server, service.port, payments)
    found["seconds"] = round(time.monotonic() - began, 1)
    return found


WRONG = (
    "lost", "double_counted", "wrong_features", "published_twice", "decisions_that_differ", "unanswered",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kafka_day", description=__doc__)
    parser.add_argument("--payments", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    if not available():
        parser.error("the jars of Apache Kafka are not here: python -m benchmarks.apache_kafka fetches them")
    stop_on_sigterm()
    out = settings().results / "kafka_day.json"
    found = day(chosen.payments, chosen.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 1 if any(found[name] for name in WRONG) else 0


if __name__ == "__main__":
    raise SystemExit(main())
