"""A roll-out under load: the stream takes up what is declared by itself, and may be killed at any moment of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import redis
from msgspec.structs import replace

from fraud.contract.transaction import Transaction
from fraud.declared.declaration import Aggregate, Declarations, StreamView
from fraud.declared.layout import SINCE, Layout
from fraud.declared.loops import read_states
from fraud.declared.state import DeclaredState
from stores.declared import Declared, declared, state_feature
from stores.redis_layout import decode_bytes, entity_key, field
from stores.settings import Settings, settings
from streaming.states.tracks import KnownFrom
from tests.declared.own import DAY, OWN, write_plan
from tests.streaming.conftest import FlowProcess, eventually
from tests.streaming.test_declared_views import plain_loop, publish, stored, with_attributes

StartFlow = Callable[..., FlowProcess]
CARD, EMAIL = OWN.streams
#: A document without the addresses' view, one with it, one in which it has a longer window.
ALONE = replace(OWN, streams=(CARD,), services=(), order=())
WIDER = replace(
    EMAIL, aggregates=(*EMAIL.aggregates, Aggregate("email_txn_count_30d", "count", "", 30 * DAY))
)


@pytest.fixture
def one_partition(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TOLLGATE_PARTITIONS", "1")
    settings.cache_clear()
    return settings()


def with_email(view: StreamView, since_ms: int) -> Declarations:
    """The document after a view came or came back at `since_ms`, as `feast apply` writes it."""
    return replace(OWN, streams=(CARD, replace(view, known_from_ms=since_ms)))


def read(layout: Layout, data: bytes, at_ms: int) -> list[float]:
    """What a service that knows this layout makes of a state."""
    matrix = np.empty((1, len(layout.names)))
    read_states(
        np.frombuffer(data, dtype=np.int64), np.array([0, len(data) // 8]), layout.shape, layout.operations,
        np.array([at_ms]), layout.ttl_ms, np.zeros((1, len(layout.tables)), dtype=np.int64),
        np.zeros((1, len(layout.values))), matrix,
    )  # fmt: skip
    return matrix[0].tolist()


def wrong_values(
    chosen: Settings, documents: Sequence[Declarations], sent: Sequence[Transaction], at_ms: int
) -> list[tuple[str, str, int]]:
    """States that a service of one of `documents` reads as anything but null or the truth."""
    found = []
    with redis.Redis.from_url(chosen.redis.url) as client:
        for number, document in enumerate(documents):
            own = Declared(document)
            truth = plain_loop(Declared(replace(document, streams=tuple(whole(document)))), sent)
            for layout in own.layouts:
                for (view, key), packed in truth.items():
                    if view != layout.view:
                        continue
                    name = entity_key(chosen.feast.project, layout.key, key)
                    value = client.hget(name, field(view, state_feature(view)))
                    if value is None:
                        continue
                    known = next(each for each in Declared(whole_of(document)).layouts if each.view == view)
                    served, expected = read(layout, decode_bytes(value), at_ms), read(known, packed, at_ms)
                    same = np.isnan(served) | (np.array(served) == np.array(expected))
                    if not same.all():
                        found.append((view, key, number))
    return found


def whole(document: Declarations) -> list[StreamView]:
    """The views as they are where everything is known."""
    return [replace(view, known_from_ms=0) for view in document.streams]


def whole_of(document: Declarations) -> Declarations:
    return replace(document, streams=tuple(whole(document)))


def test_a_running_stream_takes_up_another_document_without_being_restarted(
    one_partition: Settings, flow: StartFlow
) -> None:
    write_plan(one_partition, ALONE)
    transactions = with_attributes(900)
    publish(one_partition, transactions[:300])
    running = flow()
    before = declared(one_partition)
    expected = plain_loop(before, transactions[:300])
    eventually(lambda: stored(one_partition, before, list(expected)) == expected)

    write_plan(one_partition)
    own = declared(one_partition)
    note = KnownFrom(own.layouts[1], one_partition.home / "stream")
    publish(one_partition, transactions[300:600])  # while it changes over
    eventually(note.decided)
    publish(one_partition, transactions[600:])
    expected = plain_loop(own, transactions)
    cards = {name: data for name, data in expected.items() if name[0] == "card_risk"}
    eventually(lambda: stored(one_partition, own, list(cards)) == cards)
    emails = [name for name in expected if name[0] == "email_velocity"]
    eventually(lambda: len(stored(one_partition, own, emails)) == len(emails))
    assert running.process.poll() is None
    output = running.stop()
    assert output.count("other features are declared") == 1 and output.count("the flow starts") == 2


def test_a_document_that_cannot_be_read_leaves_the_stream_as_it_is(
    one_partition: Settings, flow: StartFlow
) -> None:
    path = write_plan(one_partition)
    transactions = with_attributes(200)
    publish(one_partition, transactions[:100])
    running = flow()
    own = declared(one_partition)
    expected = plain_loop(own, transactions[:100])
    eventually(lambda: stored(one_partition, own, list(expected)) == expected)
    path.write_bytes(b'{"streams": 7}')
    publish(one_partition, transactions[100:])
    expected = plain_loop(own, transactions)
    eventually(lambda: stored(one_partition, own, list(expected)) == expected)
    eventually(lambda: running.process.poll() is None)
    write_plan(one_partition)
    output = running.stop()
    assert output.count("the flow starts") == 1


#   document   with the view ── ALONE ── with it again ── WIDER ── as before (the way back)
#   stream         ✗ killed      ✗           ✗             ✗          drains
#   services   of the last two documents, and of the last but one, read what is in Redis at the end
def test_a_roll_out_killed_at_every_step_loses_nothing_and_shows_nothing_wrong(
    one_partition: Settings, flow: StartFlow
) -> None:
    documents = [OWN, ALONE, with_email(EMAIL, 1), with_email(WIDER, 2), with_email(EMAIL, 3)]
    transactions = with_attributes(2_500)
    at_ms = max(one.event_ms for one in transactions) + 1
    for step, document in enumerate(documents):
        write_plan(one_partition, document)
        sent = transactions[: 500 * (step + 1)]
        publish(one_partition, sent[500 * step :])
        if step == len(documents) - 1:
            break
        own = declared(one_partition)
        running = flow()
        cards = [name for name in plain_loop(own, sent) if name[0] == "card_risk"]
        eventually(lambda own=own, cards=cards: len(stored(one_partition, own, cards)) == len(cards))
        # The next document comes while this one is being worked on, and then the process dies.
        write_plan(one_partition, documents[step + 1])
        running.kill()
    flow("--drain").finish()

    own = declared(one_partition)
    expected = plain_loop(own, transactions)
    found = stored(one_partition, own, list(expected))
    card, email = own.layouts
    for (view, key), packed in expected.items():
        if view == "card_risk":  # declared all along: nothing was lost, nothing counted twice
            ours, theirs = (DeclaredState.unpack(card, data) for data in (packed, found[view, key]))
            assert (ours.events, ours.buckets, ours.tables) == (theirs.events, theirs.buckets, theirs.tables)
    later = {key for (view, key) in expected if view == "email_velocity"}
    states = [DeclaredState.unpack(email, found["email_velocity", key]) for key in later]
    # The view was gone for a while: it does not claim to know what happened meanwhile.
    assert states and all(state.header[SINCE] > at_ms for state in states)
    assert wrong_values(one_partition, documents[2:], transactions, at_ms) == []
