"""Slots, their owners and redirections, held against redis-py and the cluster specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from stores.cluster_slots import SLOTS, SlotMap, redirected_to, slot

A, B, C = ("10.0.0.1", 7000), ("10.0.0.2", 7000), ("10.0.0.3", 7000)


@given(st.binary(max_size=40) | st.from_regex(rb"[a-z]{0,3}(\{[a-z]{0,3}\}?){0,2}[a-z]{0,3}", fullmatch=True))
def test_a_key_has_the_slot_that_redis_py_gives_it(key: bytes) -> None:
    assert slot(key) == key_slot(key)


def test_published_slots_are_met() -> None:
    # Redis Cluster specification: CRC16 of "123456789" is 0x31C3; hash tags by their first braces.
    assert slot(b"123456789") == 0x31C3 % SLOTS == 12739
    assert slot(b"{user1000}.following") == slot(b"{user1000}.followers") == slot(b"user1000")
    assert slot(b"foo{}{bar}") == key_slot(b"foo{}{bar}")
    assert slot(b"foo{{bar}}zap") == slot(b"{bar")


#   0 ........ 99 | 100 ... 199 | 200 ..... | 16383
#        A        |      B      |   nobody  |   A
def test_an_answer_says_who_owns_what_and_whom_to_ask_next() -> None:
    slots = SlotMap([C])
    assert not slots.known and slots.nodes == [C]
    ranges = [
        [0, 99, [b"10.0.0.1", 7000, b"id", []], [b"10.0.0.9", 7001, b"id"]],
        [100, 199, [b"10.0.0.2", 7000, b"id"]],
        [16383, 16383, [b"", 7000, b"id"]],
    ]
    slots.take(ranges, A)
    assert slots.known and len(slots.owners) == SLOTS
    assert [slots.owners[at] for at in (0, 99, 100, 199, 200, 16383)] == [A, A, B, B, None, A]
    assert list(slots.masters) == [A, B]
    assert slots.nodes == [A, ("10.0.0.9", 7001), B, C]
    slots.move(100, A)
    assert slots.owners[100] == A and slots.owners[101] == B
    slots.forget()
    assert not slots.known and slots.nodes[0] == A
    slots.take([[0, 16383, [None, 7000]]], B)
    assert list(slots.masters) == [B] and slots.nodes[0] == B


def test_nodes_that_are_remembered_have_a_bound() -> None:
    slots = SlotMap([A])
    for number in range(3_000):
        slots.take([[0, 16383, [b"10.1.0.1", number]]], ("10.1.0.1", number))
    assert len(slots.nodes) == 1_000
    assert slots.nodes[0] == ("10.1.0.1", 2_999)


@pytest.mark.parametrize(
    ("error", "place"),
    [
        ("-MOVED 3999 127.0.0.1:6381", ("127.0.0.1", 6381)),
        ("-ASK 3999 ::1:6381", ("::1", 6381)),
        ("-MOVED 3999 :6381", ("asked", 6381)),
        ("-MOVED 3999 redis.example:6381\r\n", ("redis.example", 6381)),
    ],
)
def test_a_redirection_names_its_server(error: str, place: tuple[str, int]) -> None:
    assert redirected_to(error, "asked") == place
