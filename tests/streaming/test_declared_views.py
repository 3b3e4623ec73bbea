"""Declared views in the flow: a process end to end on a real Redis, against states made by a plain loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis
from msgspec.structs import replace

from fraud.contract.transaction import Transaction, encode_transaction
from fraud.declared.declaration import Aggregate, Declarations
from fraud.declared.state import DeclaredState
from fraud.state.observation import observe
from stores.declared import Declared, declared, state_feature
from stores.event_log import partition_of
from stores.redis_layout import decode_bytes, entity_key, field
from stores.settings import Settings, settings
from streaming.log.load import Load, events
from streaming.log.publish import open_writer
from tests.declared.own import DAY, OWN, write_plan
from tests.streaming.conftest import FlowProcess, eventually

StartFlow = Callable[..., FlowProcess]


@pytest.fixture
def one_partition(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TOLLGATE_PARTITIONS", "1")
    settings.cache_clear()
    return settings()


def with_attributes(count: int, seed: int = 1) -> list[Transaction]:
    draw = random.Random(seed)
    found = []
    for event in events(Load(count, seed=seed, customers=60, late=0.02), 1):
        assert event.transaction is not None
        given: dict[str, Any] = {"entry_mode": draw.choice(["chip", "contactless", "magstripe"])}
        if draw.random() < 0.5:
            given["email_domain"] = draw.choice(["example.org", "example.com", "example.net"])
        found.append(replace(event.transaction, attributes=given))
    return found


def publish(chosen: Settings, transactions: Sequence[Transaction]) -> None:
    with open_writer(chosen) as writer:
        for one in transactions:
            partition = partition_of(one.customer_id, chosen.event_log.partitions)
            writer.publish_raw(partition, encode_transaction(one))


def plain_loop(own: Declared, transactions: Sequence[Transaction]) -> dict[tuple[str, str], bytes]:
    """Each state of each declared view by view and key, one event after the other."""
    states: dict[tuple[str, str], DeclaredState] = {}
    for one in transactions:
        seen = observe(one)
        values = own.event_values(one, one.amount_reference)
        for observer in own.observers:
            key = observer.key(values)
            if key is not None:
                state = states.setdefault((observer.layout.view, key), DeclaredState(observer.layout))
                state.add(observer.seen(seen.event_ms, seen.transaction_key, values))
    return {name: state.pack() for name, state in states.items()}


def stored(chosen: Settings, own: Declared, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    keys = {layout.view: layout.key for layout in own.layouts}
    found = {}
    with redis.Redis.from_url(chosen.redis.url) as client:
        for view, value in names:
            key = entity_key(chosen.feast.project, keys[view], value)
            packed = client.hget(key, field(view, state_feature(view)))
            if packed is not None:
                found[view, value] = decode_bytes(packed)
    return found


def test_states_of_declared_views_equal_a_plain_loop_byte_for_byte(
    one_partition: Settings, flow: StartFlow
) -> None:
    write_plan(one_partition)
    own = declared(one_partition)
    transactions = with_attributes(2_000)
    publish(one_partition, transactions)
    flow("--drain").finish()
    expected = plain_loop(own, transactions)
    assert {view for view, _ in expected} == {"card_risk", "email_velocity"}
    assert stored(one_partition, own, list(expected)) == expected


def test_attributes_reach_the_lake_as_they_were_sent(one_partition: Settings, flow: StartFlow) -> None:
    write_plan(one_partition)
    sent = with_attributes(50)
    publish(one_partition, sent)
    flow("--drain").finish()
    files = sorted((one_partition.lake / "transactions").glob("date=*/*.parquet"))
    rows = [row for path in files for row in pq.read_table(path, partitioning=None).to_pylist()]
    own = declared(one_partition)
    by_id = {row["transaction_id"]: own.row_values(row) for row in rows}
    for one in sent:
        assert by_id[one.transaction_id] == own.event_values(one, one.amount_reference)


def test_a_flow_killed_and_continued_with_more_processes_loses_nothing_of_declared_views(
    one_partition: Settings, flow: StartFlow
) -> None:
    write_plan(one_partition)
    own = declared(one_partition)
    transactions = with_attributes(6_000)
    publish(one_partition, transactions[:3_000])
    first = flow()
    expected = plain_loop(own, transactions[:2_000])
    eventually(lambda: len(stored(one_partition, own, list(expected))) == len(expected))
    first.kill()
    publish(one_partition, transactions[3_000:])
    flow("--drain", "--processes", "2").finish()
    expected = plain_loop(own, transactions)
    found = stored(one_partition, own, list(expected))
    layouts = {layout.view: layout for layout in own.layouts}
    for (view, key), packed in expected.items():
        state, other = (DeclaredState.unpack(layouts[view], data) for data in (packed, found[view, key]))
        assert (state.events, state.buckets, state.tables) == (other.events, other.buckets, other.tables)


def test_a_view_that_a_running_stream_takes_up_knows_only_what_comes_from_then_on(
    one_partition: Settings, flow: StartFlow
) -> None:
    card_only = Declarations(attributes=OWN.attributes, measures=OWN.measures, streams=OWN.streams[:1])
    write_plan(one_partition, card_only)
    transactions = with_attributes(600)
    publish(one_partition, transactions[:300])
    flow("--drain").finish()
    write_plan(one_partition)
    publish(one_partition, transactions[300:])
    flow("--drain").finish()
    own = declared(one_partition)
    expected = plain_loop(own, transactions)
    found = stored(one_partition, own, list(expected))
    card, email = own.layouts
    for (view, _), packed in found.items():
        since = DeclaredState.unpack(card if view == "card_risk" else email, packed).header[4]
        assert since == 0 if view == "card_risk" else since > max(t.event_ms for t in transactions)
    assert {name: data for name, data in found.items() if name[0] == "card_risk"} == {
        name: data for name, data in expected.items() if name[0] == "card_risk"
    }


def test_a_view_with_another_layout_starts_anew_and_leaves_the_others_alone(
    one_partition: Settings, flow: StartFlow
) -> None:
    write_plan(one_partition)
    transactions = with_attributes(600)
    publish(one_partition, transactions[:300])
    flow("--drain").finish()
    card, email = OWN.streams
    longer = replace(
        card, aggregates=(*card.aggregates, Aggregate("card_txn_count_30d", "count", "", 30 * DAY))
    )
    write_plan(one_partition, replace(OWN, streams=(email, longer)))  # in another order, too
    publish(one_partition, transactions[300:])
    flow("--drain").finish()
    own = declared(one_partition)
    expected = plain_loop(own, transactions)
    found = stored(one_partition, own, list(expected))
    emails = {name: data for name, data in expected.items() if name[0] == "email_velocity"}
    assert emails == {name: data for name, data in found.items() if name[0] == "email_velocity"}
    layout = own.layouts[1]
    states = [
        DeclaredState.unpack(layout, data)
        for (view, _), data in found.items()
        if view == "card_risk" and data[2:8] == layout.digest.to_bytes(6, "little")
    ]
    assert states and all(state.header[4] > 0 for state in states)
