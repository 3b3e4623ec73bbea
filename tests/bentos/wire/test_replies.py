"""Replies cut out of what Redis sends, wherever the network parts it."""

from __future__ import annotations

import random
from typing import Any

import hiredis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.features.online_features import OnlineFeatures, table_plan
from bentos.wire.replies import ARRIVED, Replies, new_scan, scan
from tests.bentos.running import transaction

Told = tuple[bytes, Any]


def bulk(value: bytes) -> Told:
    return b"$%d\r\n%b\r\n" % (len(value), value), value


def array(values: list[Told]) -> Told:
    return b"*%d\r\n%b" % (len(values), b"".join(raw for raw, _ in values)), [told for _, told in values]


#: Bytes of a reply, and what it says.
plain: st.SearchStrategy[Told] = st.one_of(
    st.binary(max_size=40).map(bulk),
    st.sampled_from([b"\r\n", b"$3\r\nabc\r\n", b"*2\r\n"]).map(bulk),
    st.integers(-(2**40), 2**40).map(lambda number: (b":%d\r\n" % number, number)),
    st.sampled_from([(b"+OK\r\n", b"OK"), (b"$-1\r\n", None), (b"*-1\r\n", None), (b"*0\r\n", [])]),
)
told_replies = st.recursive(plain, lambda inner: st.lists(inner, max_size=4).map(array), max_leaves=12)


@given(st.lists(told_replies, min_size=1, max_size=8), st.integers(0, 2**32), st.integers(1, 30))
def test_replies_are_the_same_wherever_the_network_parts_them(
    told: list[Told], seed: int, longest: int
) -> None:
    rng = random.Random(seed)
    sent = b"".join(raw for raw, _ in told) + b"+next\r\n"
    state, begins, at = new_scan(), np.zeros(len(told) + 1, dtype=np.int64), 0
    while state[ARRIVED] < len(told):
        chunk = sent[at : at + rng.randint(1, longest)]
        used = scan(np.frombuffer(chunk, np.uint8), state, begins)
        assert used == len(chunk) or state[ARRIVED] == len(told)
        at += used
    assert sent[at:] == b"+next\r\n"
    replies = Replies(sent[:at], begins)
    assert list(replies) == replies.objects() == [said for _, said in told]
    assert [replies.raw(place) for place in range(len(told))] == [raw for raw, _ in told]


@given(st.lists(st.one_of(st.lists(told_replies, max_size=5).map(array), told_replies), max_size=12))
def test_whatever_the_server_sends_is_a_status_and_no_crash(told: list[Told]) -> None:
    features = OnlineFeatures(table_plan("p"))
    rows = [transaction(), transaction()]
    event_us = [row.event_ms * 1000 for row in rows]
    found = features.rows(rows, event_us, Replies.of(raw for raw, _ in told))
    # Stale, too: no bytes at all are the timestamp of 1970.
    assert "fresh" not in {state for status in found.status for state in status.values()}
    assert np.isnan(found.profiles).all()
    assert not any(any(column) for column in found.states)
    features.complete(found, Replies.of(raw for raw, _ in told))


def test_an_error_is_an_object_among_the_others() -> None:
    replies = Replies.of([b"+OK\r\n", b"-ERR no\r\n", b"", b":1\r\n"], gaps=True)
    first, error, missing, last = replies
    assert (first, missing, last) == (b"OK", None, 1)
    assert isinstance(error, hiredis.ReplyError) and str(error) == "ERR no"
    assert replies.objects(2, 9) == [None, 1]


@pytest.mark.parametrize("sent", [b"HTTP/1.1 400\r\n", b"$x\r\n", b"*3\r\n!", b"$99999999999999999\r\n"])
def test_what_is_no_reply_is_told_at_once(sent: bytes) -> None:
    assert scan(np.frombuffer(sent, np.uint8), new_scan(), np.zeros(2, dtype=np.int64)) == -1
