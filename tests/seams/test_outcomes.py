"""An outcome's whole way: taken, its payment found, told to the stream, kept in the lake, rebuilt by Spark."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from msgspec import structs
from pyspark.sql import SparkSession

from bentos.log.labels import Reporter
from bentos.log.outcomes import OutcomeStore, parse_outcomes
from feature_repo.velocity_log import build_velocity_log, newest_states
from fraud.contract.transaction import ContractError, Transaction
from fraud.features.entities import ENTITIES
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from jobs.outcomes import main as outcomes_command
from jobs.outcomes import read_waiting, settle
from stores.event_log import partition_of
from stores.settings import Settings, settings
from streaming.ingest.dead_letters import letters_folder, read_letters
from streaming.log.load import Load, events
from streaming.log.publish import open_writer
from tests.feature_repo.quick_spark import quick_spark
from tests.fraud.reading import TTL_MS, read, told
from tests.streaming.conftest import FlowProcess
from tests.streaming.conftest import configured as configured
from tests.streaming.conftest import flow as flow
from tests.streaming.oracle import stored_states

StartFlow = Callable[..., FlowProcess]
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)


@pytest.fixture
def paid(configured: Settings, flow: StartFlow) -> list[Transaction]:
    """A few hundred payments that the stream has counted."""
    load = Load(500, customers=20, merchants=8, step_ms=40_000, start=START)
    found = [event.transaction for event in events(load, 2) if event.transaction is not None]
    with open_writer(configured) as writer:
        for transaction in found:
            writer.publish(transaction)
    flow("--drain").finish()
    return found


def report(configured: Settings, *bodies: dict[str, object], client: str = "acquirer", ids: str = "") -> None:
    store = OutcomeStore(configured.home)
    store.append(
        parse_outcomes(
            json.dumps(list(bodies)).encode(), datetime.now(UTC), Reporter(client, admin=True, ids=ids)
        )
    )
    store.close()


def told_what_is_spent(paid: list[Transaction], spent: dict[str, Decimal]) -> Iterator[tuple[int, str, int]]:
    """Entity, value and 24-hour sum at the end, by the oracle, for every entity value that has any."""
    at = paid[-1].event_ms + 1
    seen = [observe(structs.replace(one, amount=spent.get(one.transaction_id, one.amount))) for one in paid]
    for place in range(len(ENTITIES)):
        for value in sorted({value for one in seen if (value := one.ids[place]) is not None}):
            answer = told(place, [one for one in seen if one.ids[place] == value]).read(at, [0, 0, 0], TTL_MS)
            yield place, value, answer.total[-1]


def assert_states_are(configured: Settings, paid: list[Transaction], spent: dict[str, Decimal]) -> None:
    at = paid[-1].event_ms + 1
    expected = list(told_what_is_spent(paid, spent))
    stored = stored_states(configured, [(place, value) for place, value, _ in expected])
    for place, value, total in expected:
        found = read(stored[place, value], place, at).total[0, -1]
        exact = len(VelocityState.unpack(ENTITIES[place], stored[place, value]).buckets) == 0
        assert found == total if exact else abs(found - total) <= 0.02 * max(total, 1), (place, value)


def test_what_was_declined_reversed_or_refunded_is_spent_no_longer_in_stream_lake_and_training(
    configured: Settings, flow: StartFlow, paid: list[Transaction], tmp_path: Path
) -> None:
    amount = {one.transaction_id: one.amount for one in paid}
    declined, part, refund, tip, late = [one.transaction_id for one in paid[5:100:20]]
    half = (amount[part] / 2).quantize(Decimal("0.01"))
    currency = {one.transaction_id: one.currency for one in paid}
    bodies: list[dict[str, object]] = [
        {"transaction_id": declined, "kind": "declined", "reason": "51"},
        {"transaction_id": part, "kind": "reversed", "amount": str(half), "currency": currency[part]},
        {"transaction_id": refund, "kind": "refunded", "outcome_id": "r-1"},
        {
            "transaction_id": tip,
            "kind": "captured",
            "amount": str(amount[tip] + 2),
            "currency": currency[tip],
        },
        {"transaction_id": "nobody-knows", "kind": "declined"},
        {"transaction_id": late, "kind": "disputed", "reason": "10.4"},
    ]
    report(configured, *bodies)
    report(configured, bodies[0], bodies[1])  # a client that retries
    done = settle(configured)
    assert (done.settled, done.repeated, done.waiting, done.aside) == (5, 2, 1, [])
    assert [waiting.outcome.transaction_id for waiting in read_waiting(configured.home)] == ["nobody-knows"]
    assert settle(configured).settled == 0
    flow("--drain").finish()
    spent = {declined: Decimal(0), part: amount[part] - half, refund: Decimal(0), tip: amount[tip] + 2}
    assert_states_are(configured, paid, spent)

    lake = ds.dataset(configured.lake / "outcomes", format="parquet").to_table().to_pylist()
    assert {(row["transaction_id"], row["kind"], row["reason"]) for row in lake} == {
        (declined, "declined", "51"), (part, "reversed", None), (refund, "refunded", None),
        (tip, "captured", None), (late, "disputed", "10.4"),
    }  # fmt: skip
    assert {row["client"] for row in lake} == {"acquirer"}
    assert all(row["created_timestamp"] > row["event_timestamp"] for row in lake)

    spark: SparkSession = quick_spark(tmp_path / "spark")
    try:
        # The training set's states, rebuilt from the lake: the stream's, byte for byte where events are in order.
        build_velocity_log(START, datetime.now(UTC) + timedelta(days=1), spark)
        for place, entity in enumerate(ENTITIES):
            rebuilt = dict(newest_states(entity, datetime.now(UTC) + timedelta(days=1)))
            stored = stored_states(configured, [(place, value) for value in rebuilt])
            at = paid[-1].event_ms + 1
            for value, state in rebuilt.items():
                ours, theirs = read(state, place, at), read(stored[place, value], place, at)
                assert ours.total.tolist() == theirs.total.tolist(), (entity.name, value)
                assert ours.count.tolist() == theirs.count.tolist()
    finally:
        spark.stop()


def test_outcomes_that_come_before_their_payment_wait_for_it_and_order_does_not_matter(
    configured: Settings, flow: StartFlow
) -> None:
    load = Load(40, customers=3, merchants=2, step_ms=1_000, start=START)
    paid = [event.transaction for event in events(load, 2) if event.transaction is not None]
    first = paid[0]
    refund = {"transaction_id": first.transaction_id, "kind": "refunded", "currency": first.currency}
    report(configured, refund | {"outcome_id": "b", "amount": "0.02"})
    assert settle(configured).waiting == 1
    with open_writer(configured) as writer:
        for transaction in paid:
            writer.publish(transaction)
    flow("--drain").finish()
    captured = {"transaction_id": first.transaction_id, "kind": "captured"}
    report(configured, captured, refund | {"outcome_id": "a", "amount": "0.01"})
    later = datetime.now(UTC).timestamp() + 60
    done = settle(configured, later)
    assert (done.settled, done.waiting) == (3, 0)
    flow("--drain").finish()
    assert_states_are(configured, paid, {first.transaction_id: first.amount - Decimal("0.03")})


def test_a_crash_between_what_is_written_down_and_what_is_told_loses_and_doubles_nothing(
    configured: Settings, flow: StartFlow, paid: list[Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = paid[3]
    report(configured, {"transaction_id": one.transaction_id, "kind": "reversed"})
    with monkeypatch.context() as broken:
        broken.setattr("jobs.outcomes.open_writer", _away)
        with pytest.raises(ConnectionError):
            settle(configured)
    assert settle(configured).settled == 0  # worked out before; told now
    flow("--drain").finish()
    assert_states_are(configured, paid, {one.transaction_id: Decimal(0)})
    assert ds.dataset(configured.lake / "outcomes", format="parquet").count_rows() == 1


def _away(*_: object) -> None:
    raise ConnectionError("away")


def test_a_change_that_no_key_signed_is_refused(
    configured: Settings, flow: StartFlow, paid: list[Transaction]
) -> None:
    one = paid[0]
    planted = {
        "spent": one.transaction_id, "event_ms": one.event_ms, "ids": [one.customer_id, *[None] * 5],
        "before": 1, "after": 0, "known_ms": one.event_ms, "outcome": "x", "signature": "AAAA",
    }  # fmt: skip
    with open_writer(configured) as writer:
        writer.publish_raw(partition_of(one.customer_id, 2), json.dumps(planted).encode())
        writer.publish_raw(
            partition_of(one.customer_id, 2), json.dumps(planted, separators=(",", ":")).encode()
        )
    flow("--drain").finish()
    assert_states_are(configured, paid, {})
    reasons = {letter.reason for _, letter in read_letters(letters_folder(configured))}
    assert any("signed by no key" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "lost"}, "kind"),
        ({"kind": "declined", "amount": "1.00", "currency": "EUR"}, "amount"),
        ({"kind": "refunded", "amount": "1.00"}, "currency"),
        ({"kind": "refunded", "amount": "1.005", "currency": "EUR"}, "amount"),
        ({"kind": "refunded", "amount": "-1", "currency": "EUR"}, "amount"),
        ({"kind": "refunded", "amount": "NaN", "currency": "EUR"}, "amount"),
        ({"kind": "refunded", "amount": "1", "currency": "XQQ"}, "currency"),
        ({"kind": "incremental"}, "amount"),
        ({"kind": "declined", "reason": "a b"}, "reason"),
        ({"kind": "declined", "outcome_id": "4111111111111111"}, "outcome_id"),
        ({"kind": "declined", "known_at": "2199-01-01T00:00:00Z"}, "known_at"),
        ({"kind": "declined", "known_at": "2026-01-01T00:00:00Z"}, "known_at"),
        ({"kind": "declined", "why": 1}, "why"),
    ],
)
def test_what_is_wrong_with_an_outcome_is_said_by_field(body: dict[str, object], field: str) -> None:
    raw = json.dumps({"transaction_id": "t"} | body).encode()
    with pytest.raises(ContractError) as refused:
        parse_outcomes(raw, datetime(2026, 3, 2, tzinfo=UTC), Reporter("shop"))
    assert refused.value.field == field


def test_an_outcome_that_names_a_field_twice_is_refused() -> None:
    raw = b'[{"transaction_id": "t", "kind": "declined", "kind": "refunded"}]'
    with pytest.raises(ContractError, match="twice") as refused:
        parse_outcomes(raw, datetime(2026, 3, 2, tzinfo=UTC), Reporter("shop"))
    assert refused.value.field == "kind"


def test_ids_belong_to_the_client_who_sends_outcomes(configured: Settings, paid: list[Transaction]) -> None:
    report(configured, {"transaction_id": paid[0].transaction_id, "kind": "declined"}, ids="another")
    assert settle(configured).waiting == 1


def test_a_file_of_outcomes_is_taken_row_by_row(
    configured: Settings, paid: list[Transaction], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "outcomes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["transaction_id", "kind", "amount", "currency", "event_time"])
        writer.writerow(
            [paid[0].transaction_id, "declined", "", "", f"{START + timedelta(days=1):%Y-%m-%d}"]
        )  # a day beside
        writer.writerow([paid[1].transaction_id, "refunded", "0.01", paid[1].currency, ""])
        writer.writerow([paid[2].transaction_id, "refunded", "much", "EUR", ""])
    assert settings().home == configured.home
    assert outcomes_command(["import", str(path)]) == 1
    said = capsys.readouterr()
    assert "line 4: amount" in said.err
    assert "2 outcomes taken, 1 rows refused" in said.out
    assert outcomes_command(["settle"]) == 0
    assert "2 settled" in capsys.readouterr().out
    assert outcomes_command(["list"]) == 0
