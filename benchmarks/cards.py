"""How well card numbers are told from ids, and what that costs a request: `results/bench/cards.json`.

    python -m benchmarks.cards [--ids 1000000]

`families` are ids of kinds that payments carry, made at random as their issuers make them, through the
function that every door uses: how many would be refused. The last ones are digits at random, beside the
`floor` that the issuers' ranges leave (their share of all numbers of that length, times one check digit in
ten), and terminals' reference numbers on four days of ten years: nothing can tell those from cards.
`issuers` are numbers at random from each issuer's ranges with their check digit, in one piece and in the
groupings that cards are printed in: all of them should be refused.
`us_per_request` is the search of one request's body, and of its fields where the body is suspicious: the
mean over bodies whose ids are short, UUIDs, snowflakes and dash-joined, a quarter each, in alternating
turns with the search as it was before (`benchmarks.cards_before`), the fastest turn of each.
"""

from __future__ import annotations

import argparse
import json
import random
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, Final

from benchmarks import cards_before
from fraud.contract import cards
from fraud.contract.cards import looks_like_card_number, luhn_valid
from fraud.contract.issuers import FEWEST, GROUPINGS, ISSUERS, LEAD, Issuer, lengths_by_lead
from stores.settings import settings

Make = Callable[[random.Random], str]
NUMBERS_AN_ISSUER: Final = 20_000
_TURNS: Final = 15
_BODIES: Final = 3_000
#: Times that ids are made of, in milliseconds since 1970: 2022 to 2026. (Snowflakes of some earlier years
#: begin like Maestro's 18 digits.)
_FIRST_MS: Final = 1_640_995_200_000
_LAST_MS: Final = 1_798_761_600_000
_TWITTER_MS: Final = 1_288_834_974_657
_DISCORD_MS: Final = 1_420_070_400_000
#: What IMEIs begin with: reporting bodies in use (TUEV/BABT, TAF, CTIA/PTCRB, MSAI, GHA, BZT).
_BODIES_OF_IMEI: Final = ("35", "86", "01", "91", "99", "49")
#: Countries of an ICCID.
_CALLING_CODES: Final = ("1", "33", "34", "39", "44", "49", "55", "61", "81", "86", "91", "971")
#: What merchant ids of acquirers begin with here: zero-padded, by acquirer's number or by country.
_ACQUIRERS: Final = (
    "000000",
    "0000",
    "42",
    "45",
    "48",
    "518",
    "527",
    "54",
    "72",
    "80",
    "84",
    "88",
    "92",
    "98",
)


def check_digit(body: str) -> str:
    """The digit that makes `body` pass Luhn."""
    return next(digit for digit in "0123456789" if luhn_valid(body + digit))


def digits(rng: random.Random, number: int) -> str:
    """`number` digits at random."""
    return str(rng.randrange(10**number)).zfill(number)


def _time(rng: random.Random) -> int:
    return rng.randrange(_FIRST_MS, _LAST_MS)


def _imei(rng: random.Random) -> str:
    body = rng.choice(_BODIES_OF_IMEI) + digits(rng, 12)
    return body + check_digit(body)


def _iccid(rng: random.Random) -> str:
    body = ("89" + rng.choice(_CALLING_CODES)).ljust(18, "0")
    body = body[:5] + digits(rng, 13)
    return body + check_digit(body)


def _snowflake(rng: random.Random, since_ms: int) -> str:
    return str((_time(rng) - since_ms) << 22 | rng.randrange(1 << 22))


def _terminal(rng: random.Random) -> str:
    day = f"2026{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
    return f"{day}-{digits(rng, 8)}-{digits(rng, 6)}"


def _joined(rng: random.Random) -> str:
    return f"{digits(rng, 9)}-{digits(rng, 5)}-{digits(rng, 7)}"


def _reference(rng: random.Random) -> str:
    return f"{rng.randrange(10)}{rng.randrange(1, 367):03d}{rng.randrange(24):02d}{digits(rng, 6)}"


def _merchant(rng: random.Random) -> str:
    lead = rng.choice(_ACQUIRERS)
    return lead + digits(rng, 15 - len(lead))


def _uuid(rng: random.Random) -> uuid.UUID:
    return uuid.UUID(int=rng.getrandbits(128), version=4)


FAMILIES: Final[dict[str, Make]] = {
    "IMEI": _imei,
    "ICCID, 19 digits": _iccid,
    "epoch seconds and six digits": lambda rng: str(_time(rng) // 1000) + digits(rng, 6),
    "epoch milliseconds": lambda rng: str(_time(rng)),
    "epoch milliseconds and three digits": lambda rng: str(_time(rng)) + digits(rng, 3),
    "epoch milliseconds and six digits": lambda rng: str(_time(rng)) + digits(rng, 6),
    "epoch microseconds": lambda rng: str(_time(rng) * 1000 + rng.randrange(1000)),
    "epoch nanoseconds": lambda rng: str(_time(rng) * 1_000_000 + rng.randrange(1_000_000)),
    "snowflake": lambda rng: _snowflake(rng, _TWITTER_MS),
    "snowflake since 2015": lambda rng: _snowflake(rng, _DISCORD_MS),
    "merchant id, 15 digits": _merchant,
    "date-terminal-stan": _terminal,
    "dash-joined, 9-5-7": _joined,
    "UUID": lambda rng: str(_uuid(rng)),
    "UUID without dashes": lambda rng: _uuid(rng).hex,
}
RANDOM: Final[dict[str, Make]] = {
    f"random, {number} digits": partial(digits, number=number) for number in range(13, 20)
}
#: Of the 3,660 leads that retrieval reference numbers of ten years have, four are those of cards.
_FLOOR_OF_REFERENCES: Final = 4 / 3660 / 10


def floor(length: int) -> float:
    """The share of all numbers of `length` digits that are an issuer's with a right check digit."""
    table = lengths_by_lead()
    return sum(lengths >> (length - FEWEST) & 1 for lengths in table) / 10**LEAD / 10


def issued(rng: random.Random, issuer: Issuer) -> str:
    """A number of the issuer's at random."""
    prefix = rng.choice(issuer.prefixes.split())
    first, _, last = prefix.partition("-")
    lead = str(rng.randint(int(first), int(last or first))).zfill(len(first))
    body = lead + digits(rng, rng.choice(issuer.lengths) - len(lead) - 1)
    return body + check_digit(body)


def printed(rng: random.Random, number: str) -> str:
    """`number` in one piece, or in a grouping that cards of its length are printed in."""
    fitting = [grouping for grouping in GROUPINGS if sum(grouping) == len(number)]
    if not fitting or rng.random() < 0.4:
        return number
    places, groups = 0, []
    for size in rng.choice(fitting):
        groups.append(number[places : places + size])
        places += size
    return rng.choice((" ", "-")).join(groups)


def _bodies(rng: random.Random) -> Iterator[tuple[bytes, list[str]]]:
    kinds: tuple[Make, ...] = (
        lambda rng: f"t-{rng.randrange(10**8)}",
        lambda rng: str(_uuid(rng)),
        FAMILIES["snowflake"],
        _joined,
    )
    for place in range(_BODIES):
        kind = kinds[place % len(kinds)]
        body = {
            "transaction_id": kind(rng),
            "event_time": "2026-02-19T12:00:00.250Z",
            "customer_id": f"cust-{rng.randrange(10**6):06d}",
            "card_id": f"card_{rng.getrandbits(64):016x}",
            "merchant_id": f"merch-{rng.randrange(10**5)}",
            "terminal_id": f"term-{rng.randrange(10**5)}",
            "device_id": kind(rng),
            "ip": "203.0.113.7",
            "amount": "12.30",
            "currency": "EUR",
            "channel": "ecom",
            "country": "DE",
            "latitude": 52.520008,
            "longitude": 13.404954,
        }
        texts = [value for value in body.values() if isinstance(value, str) and len(value) > 12]
        yield json.dumps(body).encode(), texts


def _turn(module: Any, bodies: list[tuple[bytes, list[str]]]) -> float:
    suspicious, search = module.may_hold_card_number, module.looks_like_card_number
    began = perf_counter()
    for raw, texts in bodies:
        if suspicious(raw):
            for text in texts:
                search(text)
    return (perf_counter() - began) / len(bodies) * 1e6


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cards")
    parser.add_argument("--ids", type=int, default=1_000_000, help="ids of each family")
    ids: int = parser.parse_args().ids
    rng = random.Random(24)
    families: list[dict[str, Any]] = []
    for name, make in FAMILIES.items():
        refused = sum(looks_like_card_number(make(rng)) for _ in range(ids))
        families.append({"name": name, "ids": ids, "refused": refused})
        print(f"{name}: {refused:,} of {ids:,} refused")
    floors = [(name, make, floor(len(make(rng)))) for name, make in RANDOM.items()]
    floors.append(("retrieval reference number", _reference, _FLOOR_OF_REFERENCES))
    for name, make, least in floors:
        refused = sum(looks_like_card_number(make(rng)) for _ in range(ids))
        families.append({"name": name, "ids": ids, "refused": refused, "floor": round(least * ids)})
        print(f"{name}: {refused:,} of {ids:,} refused, floor {least * ids:,.0f}")
    issuers = []
    for issuer in ISSUERS:
        refused = sum(
            looks_like_card_number(printed(rng, issued(rng, issuer))) for _ in range(NUMBERS_AN_ISSUER)
        )
        issuers.append({"name": issuer.name, "numbers": NUMBERS_AN_ISSUER, "refused": refused})
        print(f"{issuer.name}: {refused:,} of {NUMBERS_AN_ISSUER:,} refused")
    bodies = list(_bodies(rng))
    turns = [(_turn(cards_before, bodies), _turn(cards, bodies)) for _ in range(_TURNS)]
    before, now = (min(figures) for figures in zip(*turns, strict=True))
    print(f"{now:.2f} us a request, {before:.2f} before")
    figures = {
        "families": families,
        "issuers": issuers,
        "us_per_request_before": round(before, 3),
        "us_per_request": round(now, 3),
    }
    out = settings().results / "bench" / "cards.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
