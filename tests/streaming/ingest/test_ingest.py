"""Ingestion: what becomes an update, a duplicate, a late event or a dead letter."""

from __future__ import annotations

import base64
import json
import pickle
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from fraud.contract.cards import looks_like_card_number
from fraud.contract.event import EventTimes, encode_event
from fraud.contract.transaction import ContractError, Transaction, encode_transaction
from fraud.features.entities import ENTITIES
from fraud.state.observation import observe_measured
from stores.keys import open_keys
from stores.settings import load_settings
from streaming.ingest.arrival_log import arrival_table
from streaming.ingest.control import encode_seed
from streaming.ingest.dead_letters import dead_letter, mask_card_numbers
from streaming.ingest.ingest import Ingest, IngestSnapshot
from streaming.log.batch import Batch
from streaming.log.load import Load, events
from streaming.states.shard_batch import SHARD_KEYS, SHARDS, shard_of
from tests.streaming.oracle import plain_loop


@pytest.fixture
def transactions() -> Iterator[list[Transaction]]:
    yield [event.transaction for event in events(Load(50, customers=5), 1) if event.transaction]


def batch(payloads: list[bytes], appended_ms: int = 1_700_000_000_000) -> Batch:
    return Batch(
        payloads, [f"{appended_ms}-{index}" for index in range(len(payloads))], [appended_ms] * len(payloads)
    )


def test_every_entity_value_of_an_event_reaches_its_shard_once() -> None:
    event = next(iter(events(Load(1), 1)))
    assert event.transaction is not None
    ingested = Ingest(0, 10_000, 10**9).take(batch([event.payload]))
    found = {(update.shard // SHARDS, value) for update in ingested.updates for value in update.values}
    wanted = [getattr(event.transaction, entity.key) for entity in ENTITIES]
    assert found == {(place, value) for place, value in enumerate(wanted) if value is not None}
    for update in ingested.updates:
        assert all(shard_of(value) == update.shard % SHARDS for value in update.values)


def test_every_update_of_a_read_that_left_events_in_the_log_says_so() -> None:
    payloads = [event.payload for event in events(Load(20), 1)]
    ingest = Ingest(3, 10_000, 10**9)
    first, last = ingest.take(batch(payloads[:10]), more=True), ingest.take(batch(payloads[10:]))
    assert {(update.source, update.more) for update in first.updates} == {(3, True)}
    assert {(update.source, update.more) for update in last.updates} == {(3, False)}
    ended = ingest.caught_up().updates
    assert [(update.shard, update.source, update.more, update.replayed) for update in ended] == [
        (shard, 3, False, False) for shard in range(len(SHARD_KEYS))
    ]


def test_a_replay_from_a_snapshot_repeats_what_the_first_run_did() -> None:
    payloads = [event.payload for event in events(Load(300, duplicates=0.2, late=0.1, broken=0.05), 1)]
    ingest = Ingest(3, 10_000, 10**9)
    ingest.take(batch(payloads[:100]))
    snapshot = pickle.loads(pickle.dumps(tuple(ingest.snapshot())))  # noqa: S301  as Bytewax stores it
    again = Ingest(3, 10_000, 10**9, IngestSnapshot(*snapshot))
    first, second = ingest.take(batch(payloads[100:])), again.take(batch(payloads[100:]))
    assert first.arrivals == second.arrivals
    assert first.letters == second.letters
    assert first.updates == second.updates
    assert first.arrivals.sequences == sorted(set(first.arrivals.sequences))


def test_an_event_is_known_at_its_time_or_just_after_the_one_before_it(
    transactions: list[Transaction],
) -> None:
    #   arrival order:  t=50ms   t=0 (late)   t=50ms   t=100ms
    #   known at:       50000us  50001us      50002us  100000us      after the first event's time
    early, middle, newest = transactions[0], transactions[1], transactions[2]
    again = msgspec.structs.replace(middle, transaction_id="again")
    payloads = [encode_transaction(t) for t in (middle, early, again, newest)]
    rows = Ingest(0, 10_000, 10**9).take(batch(payloads)).arrivals
    first, last = middle.event_ms * 1000, newest.event_ms * 1000
    assert rows.known_us == [first, first + 1, first + 2, last]


def test_an_event_of_the_service_says_itself_when_it_was_known_and_what_was_stated(
    transactions: list[Transaction],
) -> None:
    one = transactions[0]
    moved = one.event_ms + 40
    payload = encode_event(one, encode_transaction(one), EventTimes(7_000_000, 40, one.event_ms), moved)
    rows = Ingest(0, 10_000, 10**9).take(batch([payload])).arrivals
    assert rows.known_us == [7_000_000]
    assert [seen.event_ms for seen in rows.seen] == [moved]
    assert (rows.stated_ms, rows.lateness_ms) == ([one.event_ms], [40])
    table = arrival_table(rows)
    assert table["stated_timestamp"].cast(pa.int64()).to_pylist() == [one.event_ms * 1000]
    assert table["event_timestamp"].cast(pa.int64()).to_pylist() == [moved * 1000]
    assert table["created_timestamp"].cast(pa.int64()).to_pylist() == [7_000_000]
    assert table["lateness_ms"].to_pylist() == [40]


def test_a_seed_that_is_no_state_is_a_dead_letter(transactions: list[Transaction]) -> None:
    (place, value), state = next(iter(plain_loop(transactions).items()))
    seal = open_keys(load_settings()).seal("control")
    good = encode_seed(seal, ENTITIES[place].name, value, state.pack())
    wrong = [
        encode_seed(seal, "customer", "c", b"no state"),
        encode_seed(seal, "nobody", "c", b""),
        b'{"seed":1}',
    ]
    ingested = Ingest(0, 10_000, 10**9, control=seal).take(batch([good, *wrong]))
    assert [update.seeds for update in ingested.updates] == [[(value, state.pack())]]
    assert [letter.reason for letter in ingested.letters] == [
        "holds no state of this version",
        "is of an entity that this program does not know",
        "is no control record",
    ]
    assert len(Ingest(0, 10_000, 10**9).take(batch([good])).letters) == 1


def test_a_card_number_is_masked_in_the_original_bytes() -> None:
    number = "4" + "1" * 15
    grouped = " ".join(number[at : at + 4] for at in range(0, 16, 4))
    escaped = "".join(f"\\u00{ord(digit):02x}" for digit in number)
    foreign = "".join(chr(0x0660 + int(digit)) for digit in number)
    for written in (number, grouped, grouped.replace(" ", "-"), escaped, foreign):
        payload = f'{{"card_id": "{written}", "amount": "12.34"}}'.encode()
        letter = dead_letter(0, "1-1", ContractError("card_id", "looks like a card number"), payload)
        kept = base64.b64decode(letter.original)
        assert letter.masked
        assert not looks_like_card_number(json.loads(kept)["card_id"])
        assert b"card_id" in kept


def test_bytes_without_a_card_number_are_kept_as_they_are() -> None:
    for payload in (b"\xff\x00broken", b'{"amount": 1234567890123456}', b""):
        assert mask_card_numbers(payload) == payload


@pytest.mark.finding(
    "H3", "high", "a record of a megabyte, full of card numbers, held the flow up for a minute"
)
def test_a_record_full_of_card_numbers_is_masked_in_one_pass() -> None:
    """Each number was cut out of a copy of the whole, so the time grew with the square of the size."""
    number, more = b"4111111111111111 ", 60_000
    kept = mask_card_numbers(b'{"note":"' + number * more + b'"}')
    assert kept == b'{"note":"' + (b"*" * 16 + b" ") * more + b'"}'


@pytest.mark.finding("H3", "high", "one record that raised ended the flow, again at every start")
def test_a_record_that_raises_what_nobody_foresaw_is_a_dead_letter(
    transactions: list[Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = transactions[1].transaction_id

    def observe(transaction: Transaction, event_ms: int, minor: int) -> Any:
        if transaction.transaction_id == poison:
            raise ZeroDivisionError(poison)
        return observe_measured(transaction, event_ms, minor)

    monkeypatch.setattr("streaming.ingest.ingest.observe_measured", observe)
    payloads = [encode_transaction(transaction) for transaction in transactions[:3]]
    found = Ingest(0, 10_000, 10**9).take(batch(payloads))
    (letter,) = found.letters
    assert b64decode(letter.original) == payloads[1]
    assert letter.reason == "could not be taken: ZeroDivisionError"
    assert len(found.arrivals.seen) == 2
