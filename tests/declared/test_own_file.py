"""One file of a team's own, from ``feast apply`` to served decisions, their rebuild and a training set.

The file is the tutorial's. Everything runs: the flow, Spark, Feast's materialization, the service over HTTP.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import redis
from pyspark.sql import SparkSession

from embedded.redis_server import RedisServer
from feature_repo.aggregates.grid import cuts_between
from feature_repo.aggregates.run import run_cuts
from feature_repo.store import apply_definitions, open_store
from feature_repo.velocity_log import build_velocity_log
from fraud.contract.event import EventTimes, encode_event
from fraud.contract.transaction import encode_transaction, parse_transaction
from fraud.declared.state import DeclaredState
from fraud.features.feature_list import VECTOR
from monitoring.decisions import read_decisions
from monitoring.parity.comparison import compare
from stores.declared import batch_views, declared, served_vector
from stores.redis_layout import encode_bytes, encode_timestamp, entity_key, field, ts_field
from stores.settings import REPOSITORY, settings
from streaming.log.publish import open_writer
from tests.bentos.running import Service, save_model, start_service, transaction_json, wait_for
from tests.declared.tutorial import tutorial_file, write_tutorial
from tests.feature_repo.quick_spark import quick_spark
from training.dataset import build_dataset, rebuild
from training.dataset_manifest import features_of

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 9
SERVICE = "fraud_scoring_v2"


@dataclass
class World:
    """A platform with the tutorial's file applied: what was sent, what was answered, what was decided."""

    home: Path
    spark: SparkSession
    service: Service
    sent: list[dict[str, Any]]
    scored: list[dict[str, Any]]
    answers: list[dict[str, Any]]


def event(draw: random.Random, number: int, at: datetime) -> dict[str, Any]:
    attributes: dict[str, Any] = {"entry_mode": draw.choice(["chip", "contactless", "magstripe"])}
    if draw.random() < 0.7:
        attributes["email_domain"] = draw.choice(["example.org", "example.com"])
    customer = draw.randrange(12)
    return transaction_json(
        transaction_id=f"own-{number:05d}", event_time=at.isoformat(), customer_id=f"customer-{customer}",
        card_id=f"card-{customer}-{draw.randrange(2)}", merchant_id=f"merchant-{draw.randrange(20)}",
        terminal_id=None, device_id=None, ip=None, latitude=None, longitude=None,
        amount=f"{draw.lognormvariate(2.5, 1.2):.2f}", channel=draw.choice(["pos", "ecom"]),
        country=draw.choice(["DE", "FR", "IT"]), attributes=attributes,
    )  # fmt: skip


def body(one: dict[str, Any]) -> bytes:
    """What a client sends of an event."""
    return json.dumps({name: value for name, value in one.items() if name != "decision"}).encode()


def kyc(lake: Path, name: str, days: Sequence[tuple[int, int, float]]) -> None:
    """Another team's table: limits of all customers but one, from a day on, known since another."""
    rows = []
    for number in range(11):
        for day, known, limit in days:
            at, seen = START + timedelta(days=day), START + timedelta(days=known)
            rows.append(
                {"customer_id": f"customer-{number}", "event_timestamp": at, "created_timestamp": seen,
                 "credit_limit": limit + number, "is_vip": number % 2 == 0}
            )  # fmt: skip
    (lake / "kyc").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), lake / "kyc" / name)


_probe = itertools.count()


def versions_in_service(client: httpx.Client) -> set[str | None]:
    """The models that decide on payments of some customers."""
    found = set()
    for customer in range(12):
        body = transaction_json(transaction_id=f"probe-{next(_probe)}", customer_id=f"probe-{customer}")
        found.add(client.post("/v1/score", json=body).json()["model_version"])
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[World]:
    root = tmp_path_factory.mktemp("own")
    home = root / "home"
    write_tutorial(root / "features")
    url = f"redis://127.0.0.1:{redis_server.port}/11"
    redis.Redis.from_url(url).flushdb()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLGATE_HOME", str(home))
        patch.setenv("TOLLGATE_FEATURES", str(root / "features"))
        patch.setenv("TOLLGATE_REDIS_URL", url)
        patch.setenv("TOLLGATE_PARTITIONS", "1")
        settings.cache_clear()
        apply_definitions()
        kyc(settings().lake, "first.parquet", ((0, 0, 500.0), (3, 3, 900.0)))
        draw = random.Random(5)
        times = sorted(draw.random() for _ in range(1_500))
        sent = [
            {**event(draw, number, START + timedelta(days=DAYS * share)), "decision": decision}
            for number, share in enumerate(times)
            for decision in [random.Random(number).choice(["APPROVE", "APPROVE", "REVIEW", "BLOCK"])]
        ]
        with open_writer(settings()) as writer:
            for one in sent:
                parsed = parse_transaction(body(one))
                times = EventTimes(parsed.event_ms * 1000, decision=one["decision"])
                writer.publish_raw(0, encode_event(parsed, encode_transaction(parsed), times))
        flow = subprocess.run(
            [sys.executable, "-m", "streaming.flow", "--drain"], cwd=REPOSITORY, env=dict(os.environ),
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert flow.returncode == 0, flow.stdout[-2000:] + flow.stderr[-2000:]
        spark = quick_spark(home)
        # Plain Feast, up to a minute before the last midnight: Spark computes the cut of 18:00, which is
        # visible a quarter of an hour later. All batch views together: what lies in the lake and not online
        # would be found missing by the rebuild, rightly.
        assert not list((settings().lake / "profiles").glob("email_history/*"))
        open_store().materialize(
            START - timedelta(days=1), START + timedelta(days=DAYS, minutes=-1),
            feature_views=["customer_kyc", *(view.name for view in batch_views())],
        )  # fmt: skip
        # What becomes known later may be seen by nothing here.
        kyc(settings().lake, "later.parquet", ((4, DAYS + 5, 1.0),))
        save_model(home, "v1")
        save_model(home, "v2", features=features_of(SERVICE))
        (home / "deployment.json").write_text(
            json.dumps({"champion": "v1", "challenger": "v2", "share": 0.5})
        )
        rules = root / "rules.yaml"
        rules.write_text(
            "rules:\n  - name: swiped_at_once\n    when: entry_mode == 'magstripe' && card_count_7d >= 1.0\n"
            "    action: review\n    reason: SWIPED\n"
        )
        service = start_service(home, url, TOLLGATE_RULES_FILE=str(rules))
        later = START + timedelta(days=DAYS, minutes=1)
        scored = [event(draw, 10_000 + number, later + timedelta(seconds=number)) for number in range(60)]
        with httpx.Client(base_url=service.url, timeout=30) as client:
            # Models are tried in processes of their own before they serve.
            assert wait_for(lambda: {"v1", "v2"} <= versions_in_service(client), 120)
            answers = [client.post("/v1/score", json=one).json() for one in scored]
        yield World(home, spark, service, sent, scored, answers)
        service.stop()
        spark.stop()
    settings.cache_clear()


@pytest.fixture(scope="module")
def served(world: World) -> pa.Table:
    folder = world.home / "decisions"

    wanted = {one["transaction_id"] for one in world.scored}

    def decided() -> pa.Table:
        files = list(folder.rglob("[!.]*.parquet"))
        return read_decisions(folder) if files else pa.table({"transaction_id": pa.array([], pa.string())})

    assert wait_for(lambda: wanted <= set(decided()["transaction_id"].to_pylist()), 120)
    return decided().filter(pc.is_in(decided()["transaction_id"], pa.array(sorted(wanted))))


@pytest.fixture(scope="module")
def logged(world: World) -> dict[str, int]:
    """The log of every state, rebuilt from the lake: rows by entity and view."""
    return build_velocity_log(START, START + timedelta(days=DAYS + 1), world.spark)


def cents(one: dict[str, Any]) -> float:
    return float(parse_transaction(body(one)).amount_reference)


def truth(world: World, one: dict[str, Any]) -> dict[str, float]:
    """The tutorial's features of a transaction, the obvious way."""
    at = datetime.fromisoformat(one["event_time"])

    def before(span: timedelta, **of: str) -> list[dict[str, Any]]:
        return [
            each
            for each in world.sent
            if at - span <= datetime.fromisoformat(each["event_time"]) < at
            and all({**each, **each["attributes"]}.get(name) == value for name, value in of.items())
        ]

    card = {"card_id": one["card_id"]}
    day, week, month = timedelta(days=1), timedelta(days=7), timedelta(days=30)
    mode = one["attributes"]["entry_mode"]
    known = int(one["customer_id"].removeprefix("customer-"))
    limit = float("nan")
    if known < 11:
        limit = known + (900.0 if at >= START + timedelta(days=3) else 500.0)
    found = {
        "txn_entry_mode": {"chip": 0.0, "contactless": 1.0, "magstripe": 2.0}[mode],
        "card_count_7d": len(before(week, **card)),
        "card_count_30d_live": len(before(month, **card)),
        "card_ecom_count_1h": len(before(timedelta(hours=1), channel="ecom", **card)),
        "card_small_count_5m": sum(cents(each) < 200 for each in before(timedelta(minutes=5), **card)),
        "card_blocked_count_24h": len(before(day, decision="BLOCK", **card)),
        "card_amount_max_24h": max([cents(each) for each in before(day, **card)], default=float("nan")),
        "card_countries_24h": len({each["country"] for each in before(day, **card)}),
        "card_new_entry_mode_30d": float(not before(month, entry_mode=mode, **card)),
        "credit_limit": limit,
        "is_vip": float(known % 2 == 0) if known < 11 else float("nan"),
        "amount_over_limit": cents(one) / (limit * 100.0),
    }
    domain = one["attributes"].get("email_domain")
    email = {"email_domain": domain}
    found |= history(world, domain, at)
    found["email_count_1h"] = len(before(timedelta(hours=1), **email)) if domain else float("nan")
    found["email_cards_24h"] = (
        len({each["card_id"] for each in before(day, **email)}) if domain else float("nan")
    )
    return found


def history(world: World, domain: str | None, at: datetime) -> dict[str, float]:
    """The batch view's features as of the last cut that is visible at a time."""
    cut = START + (at - timedelta(minutes=15) - START) // timedelta(hours=6) * timedelta(hours=6)
    mine = [
        (cut - datetime.fromisoformat(each["event_time"]), each)
        for each in world.sent
        if domain and each["attributes"].get("email_domain") == domain
    ]
    past = [(age, each) for age, each in mine if age > timedelta(0)]
    if not past:
        return dict.fromkeys(
            ("email_count_90d", "email_ecom_count_7d", "email_amount_std_30d", "email_fraud_rate_1d"),
            float("nan"),
        )
    amounts = [cents(each) for _, each in past]
    mean = sum(amounts) / len(amounts)
    week = timedelta(days=7)
    return {
        "email_count_90d": float(len(past)),
        "email_ecom_count_7d": float(
            len([age for age, each in past if age <= week and each["channel"] == "ecom"])
        ),
        "email_amount_std_30d": (sum((each - mean) ** 2 for each in amounts) / len(amounts)) ** 0.5,
        # Labels ripen for a week; nobody reported a fraud.
        "email_fraud_rate_1d": 0.0
        if any(week < age <= week + timedelta(days=1) for age, _ in past)
        else float("nan"),
    }


def test_the_file_is_short_and_the_only_one_touched() -> None:
    assert len(tutorial_file().splitlines()) <= 60


def test_every_own_feature_is_served_as_the_truth_has_it(world: World, served: pa.Table) -> None:
    own = declared().declarations.order
    assert set(served_vector()) - set(VECTOR) == set(own) == set(truth(world, world.scored[0]))
    rows = {row["transaction_id"]: row for row in served.to_pylist()}
    for one in world.scored:
        row, expected = rows[one["transaction_id"]], truth(world, one)
        for name in own:
            if name.startswith("card_count") and name.endswith("_live"):
                continue  # beyond the exact part of a state: within its bound, below
            got = float("nan") if row[name] is None else row[name]
            assert got == pytest.approx(expected[name], nan_ok=True), name
        assert row["card_count_30d_live"] == pytest.approx(expected["card_count_30d_live"], rel=0.02)


def test_each_view_has_a_status_of_its_own(world: World) -> None:
    for one, answer in zip(world.scored, world.answers, strict=True):
        status = answer["feature_status"]
        assert status["card_risk"] == "fresh"
        assert status["email_history"] == ("fresh" if "email_domain" in one["attributes"] else "missing")
        assert status["customer_kyc"] == ("fresh" if one["customer_id"] != "customer-11" else "missing")
        assert status["email_velocity"] == ("fresh" if "email_domain" in one["attributes"] else "missing")


def test_models_of_both_services_are_served_from_one_read(world: World) -> None:
    assert {answer["model_version"] for answer in world.answers} == {"v1", "v2"}
    assert all(answer["fraud_score"] is not None for answer in world.answers)


def test_rules_read_attributes_and_own_features(world: World) -> None:
    for one, answer in zip(world.scored, world.answers, strict=True):
        holds = one["attributes"]["entry_mode"] == "magstripe" and truth(world, one)["card_count_7d"] >= 1
        assert ("swiped_at_once" in answer["rules"]) == holds


def test_what_is_not_declared_is_refused_by_name(world: World) -> None:
    for attributes, wrong in (
        ({"favourite_colour": "red"}, "attributes.favourite_colour"),
        ({"entry_mode": "telepathy"}, "attributes.entry_mode"),
        ({"email_domain": "x" * 65}, "attributes.email_domain"),
    ):
        body = transaction_json(transaction_id="refused", attributes=attributes)
        refused = httpx.post(f"{world.service.url}/v1/score", json=body)
        assert refused.status_code == 422 and refused.json()["error"]["field"] == wrong


def test_a_rebuild_gives_every_served_value_again(
    world: World, served: pa.Table, logged: dict[str, int]
) -> None:
    assert logged["card_risk"] == len(world.sent) > logged["email_velocity"] > 0
    report = compare(served, rebuild(served, world.spark), served_vector())
    assert report.rows == len(world.scored) and report.features == len(VECTOR) + 18
    assert report.mismatched_rows == 0, report.examples[:3]


@pytest.mark.usefixtures("logged")
def test_a_training_set_of_the_own_service_has_its_features_as_they_were_known(world: World) -> None:
    first, last = START + timedelta(days=5), START + timedelta(days=6)
    run_cuts(cuts_between(first - timedelta(hours=6), last), world.spark, views=["email_history"])
    built = build_dataset(
        first, last, as_of=START + timedelta(days=DAYS), out=world.home / "set", spark=world.spark,
        service=SERVICE,
    )  # fmt: skip
    files = sorted(built.folder.glob("date=*/*.parquet"))
    rows = pa.concat_tables([pq.read_table(path, partitioning=None) for path in files]).to_pylist()
    assert len(rows) == built.rows > 100
    sent = {one["transaction_id"]: one for one in world.sent}
    for row in rows:
        expected = truth(world, sent[row["transaction_id"]])
        for name in declared().declarations.order:
            got = float("nan") if row[name] is None else float(row[name])
            assert got == pytest.approx(expected[name], rel=0.02, nan_ok=True), name
    manifest = json.loads((built.folder / "manifest.json").read_text())
    assert manifest["feature_service"] == SERVICE and manifest["declared"] == declared().digest


def test_feasts_own_door_serves_aggregates_by_name_and_nothing_of_a_state_past_its_ttl(world: World) -> None:
    own = declared()
    observer = own.observers[0]
    now = datetime.now(UTC)
    state = DeclaredState(observer.layout)
    for number, minutes in enumerate((300, 50, 4)):
        at = now - timedelta(minutes=minutes)
        one = parse_transaction(
            json.dumps(transaction_json(event_time=at.isoformat(), amount=f"{number + 1}.00")).encode()
        )
        state.add(observer.seen(one.event_ms, number << 40, own.event_values(one, one.amount_reference)))
    key = entity_key(settings().feast.project, "card_id", "card-now")
    world.service.redis.hset(
        key, mapping={field("card_risk", "card_risk_state"): encode_bytes(state.pack()),
                      ts_field("card_risk"): encode_timestamp(state.version)},
    )  # fmt: skip
    names = ["card_amount_max_24h", "card_count_7d", "card_small_count_5m", "card_new_entry_mode_30d"]
    found = open_store().get_online_features(
        features=[*[f"card_risk:{name}" for name in names], "customer_kyc:credit_limit"],
        entity_rows=[
            {"card_id": "card-now", "customer_id": "customer-1"},
            {"card_id": "card-1-0", "customer_id": "customer-1"},  # of March
        ],
    ).to_dict()  # fmt: skip
    reference = parse_transaction(json.dumps(transaction_json(amount="3.00")).encode()).amount_reference
    assert found["card_amount_max_24h"] == [float(reference), None]
    assert found["card_count_7d"] == [3.0, None]
    assert found["card_small_count_5m"] == [float(reference < 200), None]
    assert found["card_new_entry_mode_30d"] == [None, None]  # of no transaction
    assert found["credit_limit"] == [901.0, 901.0]


@pytest.mark.usefixtures("logged")
def test_plain_materialize_brings_every_view_back_byte_for_byte(world: World) -> None:
    client = world.service.redis

    def states() -> dict[tuple[bytes, str], bytes]:
        found = {}
        for key in client.scan_iter(match=b"*_id*tollgate"):
            for view in ("card_risk", "card_velocity", "customer_velocity"):
                name = f"{view.removesuffix('_velocity')}_state" if "velocity" in view else f"{view}_state"
                stored = client.hget(key, field(view, name))
                if stored is not None:
                    found[key, view] = stored
        return found

    sent = {one["card_id"] for one in world.sent}
    before = {name: data for name, data in states().items() if any(card.encode() in name[0] for card in sent)}
    assert len(before) > 20
    for key in {key for key, _ in before}:
        client.delete(key)
    open_store().materialize(START - timedelta(days=1), START + timedelta(days=DAYS, hours=1))
    after = states()
    assert {name: after.get(name) for name in before} == before
