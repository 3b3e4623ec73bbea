"""Control records: only who has the deployment's keys sets states, whoever may write to the event log."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from fraud.contract.transaction import ContractError, encode_transaction
from fraud.features.entities import ENTITIES, ENTITY_BY_NAME
from fraud.state.layout import VERSION
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from stores.event_log import partition_of
from stores.key_file import change_ring, make_ring, new_key, read_ring
from stores.keys import Keys, Seal, open_keys
from stores.settings import Settings, load_settings
from streaming.ingest.control import encode_seed, read_seed
from streaming.ingest.dead_letters import letters_folder, read_letters
from streaming.log.publish import open_writer
from tests.bentos.running import transaction
from tests.streaming.conftest import FlowProcess
from tests.streaming.oracle import stored_states

H3 = pytest.mark.finding(
    "H3",
    "high",
    "Producers of transactions planted velocity states, and one with version 2^63-1 ended the flow",
)
CARD = ENTITY_BY_NAME["card"]
PLACE = ENTITIES.index(CARD)
YEAR_2100 = datetime(2100, 1, 1, tzinfo=UTC)
StartFlow = Callable[..., FlowProcess]


def state(when: datetime, version: int | None = None) -> bytes:
    made = VelocityState(CARD)
    made.add(
        observe(msgspec.structs.replace(transaction(transaction_id="seeded", card_id="k1"), event_time=when)),
        PLACE,
    )
    if version is not None:
        made.header[VERSION] = version
    return made.pack()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def seal() -> Seal:
    return open_keys(load_settings()).seal("control")


def reason(seal: Seal, payload: bytes) -> str:
    with pytest.raises(ContractError) as refused:
        read_seed(seal, payload, now_ms())
    return refused.value.reason


@H3
def test_a_seed_of_somebody_without_the_keys_is_refused(seal: Seal) -> None:
    packed = state(datetime.now(UTC))
    good = encode_seed(seal, "card", "k1", packed)
    assert read_seed(seal, good, now_ms()) == (PLACE, "k1", packed)
    for forged in (
        msgspec.json.encode(
            {"seed": "card", "key": "k1", "state": base64.b64encode(packed).decode(), "signature": ""}
        ),
        good.replace(b'"k1"', b'"k2"'),
        good.replace(b'"card"', b'"ip"'),
        encode_seed(open_keys(load_settings()).seal("answers"), "card", "k1", packed),
    ):
        assert "signed by no key" in reason(seal, forged)
    unsigned = msgspec.json.encode({"seed": "card", "key": "k1", "state": base64.b64encode(packed).decode()})
    assert reason(seal, unsigned) == "is no control record"


@H3
@pytest.mark.parametrize(
    "made",
    [
        lambda now: state(YEAR_2100),
        lambda now: state(now, 2**63 - 1),
        lambda now: state(now + timedelta(minutes=6)),
    ],
    ids=["an event in 2100", "the largest version", "six minutes ahead"],
)
def test_a_seed_from_the_future_is_refused_though_it_is_signed(
    seal: Seal, made: Callable[[datetime], bytes]
) -> None:
    packed = made(datetime.now(UTC))  # now, not when the tests were collected
    assert "5 minutes in the future" in reason(seal, encode_seed(seal, "card", "k1", packed))


def test_seeds_of_a_key_before_are_taken_until_it_is_retired(tmp_path: Path) -> None:
    make_ring(tmp_path / "keys.json")
    keys = Keys(tmp_path / "keys.json")
    seal, old = keys.seal("control"), keys.signing
    payload = encode_seed(seal, "card", "k1", state(datetime.now(UTC)))
    key = new_key(datetime.now(UTC))
    change_ring(keys.path, lambda ring: msgspec.structs.replace(ring, keys=(*ring.keys, key)))
    keys.refresh()
    assert keys.signing == key.id
    read_seed(seal, payload, now_ms())
    retired = [msgspec.structs.replace(one, retired=one.id == old) for one in read_ring(keys.path).keys]
    change_ring(keys.path, lambda ring: msgspec.structs.replace(ring, keys=tuple(retired)))
    keys.refresh()
    assert "signed by no key" in reason(seal, payload)


@H3
def test_planted_seeds_change_no_state_end_no_flow_and_are_dead_letters(
    configured: Settings, flow: StartFlow
) -> None:
    seal = open_keys(configured).seal("control")
    start = datetime.now(UTC) - timedelta(minutes=5)
    payments = [
        msgspec.structs.replace(
            transaction(transaction_id=f"real-{n}", card_id="k1"), event_time=start + timedelta(seconds=n)
        )
        for n in range(10)
    ]
    partition = partition_of(payments[0].customer_id, configured.event_log.partitions)
    planted = [
        encode_seed(open_keys(configured).seal("answers"), "card", "k1", state(YEAR_2100)),
        encode_seed(seal, "card", "k1", state(YEAR_2100)),
        encode_seed(seal, "card", "k1", state(start, 2**63 - 1)),
        b'{"seed":"card","key":"k1","state":"AAAA","signature":"AAAA"}',
        b'{"seed":{"seed":{}}}',
    ]
    with open_writer(configured) as writer:
        for payload in planted:
            writer.publish_raw(partition, payload)
        for payment in payments:
            writer.publish_raw(partition, encode_transaction(payment))
    for _ in range(2):  # the second start meets the same log, as the review's did
        flow("--drain").finish()
    stored = VelocityState.unpack(
        CARD, stored_states(configured, {(PLACE, "k1"): VelocityState(CARD)})[PLACE, "k1"]
    )
    assert len(stored.events) // 2 == len(payments)
    assert stored.newest_ms == payments[-1].event_ms
    letters = [letter for _, letter in read_letters(letters_folder(configured))]
    assert [letter.field for letter in letters] == ["(seed)"] * len(planted)
