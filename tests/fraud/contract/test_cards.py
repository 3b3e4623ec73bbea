"""Card numbers are found wherever they hide, and ids are not taken for them.

Numbers are built here at run time, except those that processors publish for tests.
"""

from __future__ import annotations

import itertools
import random
import uuid

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cards import FAMILIES, digits, floor, issued, printed
from fraud.contract.cards import (
    SUSPECT,
    is_card_number,
    looks_like_card_number,
    luhn_valid,
    may_hold_card_number,
    redact,
)
from fraud.contract.issuers import GROUPINGS, ISSUERS, Issuer

#: Test numbers that schemes and processors publish in their documentation.
PUBLISHED = """
    4111111111111111 4242424242424242 4012888888881881 4222222222222 4988438843884305 4000000000000000006
    4166676667666746 5555555555554444 5105105105105100 2223003122003222 2223000048400011 5200828282828210
    378282246310005 371449635398431 378734493671000 30569309025904 38520000023237 3056930009020004
    36227206271667 6011111111111117 6011000990139424 6011981111111113 3530111333300000 3566002020360505
    3569990010095841 6200000000000005 6200000000000047 6205500000000000004 6243030000000001 8171999927660000
    6759649826438453 6799990100000000019 6304000000000000 6771798021000008 6703444444444449 67034200554565015
    5019717010103742 5019555544445555 5066991111111118 6062828888666688 9792030394440796 135410014004955
    2201382000000013 5061460410120223210 5060990580000217499 8600060921090842 8600069195406311
    8600495473316478 6035227716427021 6362970000457013
"""


@pytest.mark.parametrize("number", PUBLISHED.split())
def test_test_numbers_of_the_schemes_are_found(number: str) -> None:
    assert looks_like_card_number(number)
    assert may_hold_card_number(f'{{"card_id":"{number}"}}'.encode())
    assert not looks_like_card_number(number[:-1] + str((int(number[-1]) + 1) % 10))


@pytest.mark.parametrize("issuer", ISSUERS, ids=lambda issuer: issuer.name)
def test_every_number_of_an_issuer_is_found_as_it_is_printed(issuer: Issuer) -> None:
    rng = random.Random(issuer.name)
    for _ in range(300):
        text = printed(rng, issued(rng, issuer))
        assert looks_like_card_number(text), text
        assert may_hold_card_number(f'{{"card_id": "{text}"}}'.encode()), text
        assert redact(f"a {text}.") == "a [card number]."


@pytest.mark.parametrize("issuer", ISSUERS, ids=lambda issuer: issuer.name)
def test_the_edges_of_every_range_are_found(issuer: Issuer) -> None:
    for first, last in issuer.ranges:
        for lead in (first, last):
            for length in issuer.lengths:
                body = f"{lead:06d}".ljust(length - 1, "7")
                assert sum(is_card_number(body + digit) for digit in "0123456789") == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_not_card_numbers(family: str) -> None:
    rng = random.Random(family)
    refused = sum(looks_like_card_number(FAMILIES[family](rng)) for _ in range(20_000))
    assert refused <= 8  # the benchmark asks a million: at most one in ten thousand


@pytest.mark.parametrize("length", range(13, 20))
def test_digits_at_random_are_refused_as_often_as_the_issuers_ranges_make_it(length: int) -> None:
    rng = random.Random(length)
    refused = sum(looks_like_card_number(digits(rng, length)) for _ in range(20_000))
    assert refused < 20_000 * floor(length) * 1.25


@pytest.mark.parametrize(
    "text",
    ["490154203237518", "356938035643809", "8991101200003204510", "89014103211118510720", "912345678-12345-1764428",
     "1760000000000-4111", "20260219-12345678-123456", "498750000012345", "ch_3MmlLrLkdIwHu7ix0snN0B15"],
)  # fmt: skip
def test_ids_of_real_systems_are_let_through(text: str) -> None:
    assert not looks_like_card_number(text)
    assert redact(text) == text


@pytest.mark.parametrize("length", [8, 11, 20, 25])
def test_shorter_and_longer_numbers_are_not(length: int) -> None:
    body = "4".ljust(length - 1, "0")
    assert not any(looks_like_card_number(body + digit) for digit in "0123456789")


@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_exactly_one_check_digit_makes_a_number_valid(body: str) -> None:
    assert sum(luhn_valid(body + digit) for digit in "0123456789") == 1
    wrong = [digit for digit in "0123456789" if not luhn_valid(body + digit)]
    assert not any(looks_like_card_number(body + digit) for digit in wrong)


def test_groups_that_no_card_has_are_an_id() -> None:
    number = "4" + "1" * 15
    for sizes in ((8, 8), (9, 7), (5, 5, 6), (2, 14), (4, 4, 8), (3, 4, 4, 5)):
        assert sizes not in GROUPINGS
        places = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
        groups = [number[start:end] for start, end in itertools.pairwise(places)]
        assert not looks_like_card_number("-".join(groups))


def test_the_data_of_a_magnetic_stripe_hold_a_card_number() -> None:
    number = "4" + "1" * 15
    for track in (
        f"{number}=26122011234567890",
        f"{number}D26122011234567890",
        f"{number}D2612201123456789F",
    ):
        assert looks_like_card_number(track)
        assert looks_like_card_number(track.lower())
        assert "1111" not in redact(track)


GROUPED = [
    "{0}{1}{2}{3}",
    "{0} {1} {2} {3}",
    "{0}-{1}-{2}-{3}",
    "{0} {1}-{2} {3}",
    "{0}\u00a0{1}\u2013{2}\u2009{3}",
    "{0}  {1}  {2}  {3}",
    "{0} - {1} - {2} - {3}",
    "{0}\t{1}\n{2} {3}",
]
AROUND = ["{}", "card {}", "{}.", "pan={};", "x{}x", "ref:{}/2026", "2026-03-01 {}", "7 {} 12", "«{}»"]


@pytest.mark.parametrize("grouping", GROUPED)
@pytest.mark.parametrize("around", AROUND)
def test_grouped_numbers_and_numbers_in_longer_text_are_found_and_redacted(
    grouping: str, around: str
) -> None:
    digits = "4" + "1" * 15
    text = around.format(grouping.format(*[digits[at : at + 4] for at in range(0, 16, 4)]))
    assert looks_like_card_number(text)
    assert may_hold_card_number(text.encode())
    assert "1111" not in redact(text)
    assert "[card number]" in redact(text)


def test_digits_of_another_script_are_digits() -> None:
    digits = "4" + "1" * 15
    for zero in (0xFF10, 0x0660, 0x0966):
        text = "".join(chr(zero + int(digit)) for digit in digits)
        assert looks_like_card_number(text)
        assert may_hold_card_number(text.encode())
        assert redact(text) == "[card number]"


def test_random_identifiers_are_not_taken_for_card_numbers() -> None:
    rng = random.Random(5)
    for _ in range(5_000):
        name = uuid.UUID(int=rng.getrandbits(128), version=4)
        assert not looks_like_card_number(f"txn_{name}") or name.hex.isdigit()
        assert not looks_like_card_number(name.hex) or name.hex.isdigit()


def test_a_card_number_beside_a_uuid_is_still_found() -> None:
    name = uuid.UUID(int=random.Random(1).getrandbits(128), version=4)
    assert looks_like_card_number(f"{name} {'4' + '1' * 15}")


@given(st.text(max_size=40), st.text(alphabet="0123456789 -", max_size=25))
def test_the_cheap_filter_never_misses_what_the_search_finds(before: str, digits: str) -> None:
    text = before + digits
    assert may_hold_card_number(text.encode()) or not looks_like_card_number(text)
    if looks_like_card_number(text):
        assert pc.match_substring_regex(pa.array([text]), SUSPECT)[0].as_py()


def test_text_without_a_card_number_is_left_alone() -> None:
    for text in ("", "order 1234", "2026-03-01 12:00:00.250", "+49 30 1234567", "203.0.113.7"):
        assert not looks_like_card_number(text)
        assert redact(text) == text


@pytest.mark.parametrize("pair", ["00", "18", "26", "34", "42", "59", "67", "75", "83", "91"])
def test_each_digit_is_doubled_as_the_standard_says(pair: str) -> None:
    # ISO/IEC 7812-1, annex B: the digit beside the check digit counts double, and of 10 and more its digits' sum.
    assert luhn_valid(pair)
    assert not any(luhn_valid(pair[0] + last) for last in "0123456789" if last != pair[1])
    assert luhn_valid("1" + pair[0] + str((int(pair[1]) + 9) % 10)) and luhn_valid("79927398713")
