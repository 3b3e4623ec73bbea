"""What one declared feature costs, and what forty cost the stream.

A price is that of a view with this one aggregate: bytes of its state, microseconds to add an event, to read
the feature, and seconds of one processor to replay a million events in a backfill (each event adds to a state
and packs it; Spark's own work comes on top). At 10 events a day an entity is like most, at 1,000 like the
busiest.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from fraud.declared.declaration import (
    Aggregate,
    Attribute,
    Declarations,
    Function,
    Measure,
    Service,
    StreamView,
    TableView,
)
from fraud.declared.layout import layout_of
from fraud.declared.loops import read_states
from fraud.declared.seen import DeclaredSeen
from fraud.declared.state import DeclaredState
from stores.declared import NOTHING, Declared
from streaming.ingest.ingest import Ingest
from streaming.log.batch import Batch
from streaming.log.load import Load, events
from streaming.states.shard_batch import SHARDS
from streaming.states.tracks import tracks_of

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START: Final = 1_760_000_000_000
#: Events a day of an entity.
PACES: Final = (10, 1_000)
PRICED: Final[tuple[tuple[Function, str, int], ...]] = (
    ("count", "", HOUR), ("count", "", 30 * DAY), ("count_if", "is_ecom", DAY), ("sum", "amount", DAY),
    ("std", "amount", 30 * DAY), ("max", "amount", 7 * DAY), ("last", "amount", DAY),
    ("count_distinct", "card_id", DAY), ("new", "merchant_id", 30 * DAY), ("speed_kmh", "location", DAY),
    ("seconds_since_last", "", 30 * DAY),
)  # fmt: skip
#: Forty further features over three attributes, an entity, two filters, long windows and a table.
_WINDOWS: Final = {"5m": 5 * MINUTE, "1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}


def forty() -> Declarations:
    """The declarations that the stream's cost is stated for."""

    def view(name: str, entity: str, key: str, *what: tuple[str, Function, str, str]) -> StreamView:
        aggregates = [Aggregate(f"{entity}_{n}_{w}", f, column, _WINDOWS[w]) for n, f, column, w in what]
        return StreamView(name, entity, key, 30 * DAY, tuple(aggregates))

    card = view(
        "card_more", "card", "card_id",
        *[("ecom", "count_if", "is_ecom", window) for window in ("5m", "1h", "24h", "7d")],
        *[("small", "count_if", "is_small", window) for window in ("5m", "1h", "24h", "7d")],
        *[("total", "sum", "amount", window) for window in ("1h", "24h", "7d")],
        *[("top", "max", "amount", window) for window in ("1h", "24h", "7d")],
        ("many", "count", "", "7d"), ("places", "count_distinct", "country", "24h"),
        ("mode", "new", "entry_mode", "7d"), ("tip", "mean", "tip", "24h"),
    )  # fmt: skip
    customer = view(
        "customer_long", "customer", "customer_id", ("number", "count", "", "30d"),
        ("spent", "sum", "amount", "30d"), ("spread", "std", "amount", "30d"),
        ("modes", "count_distinct", "entry_mode", "30d"),
    )  # fmt: skip
    email = view(
        "email_velocity", "email", "email_domain",
        *[("number", "count", "", window) for window in ("5m", "1h", "24h")],
        *[("spent", "sum", "amount", window) for window in ("1h", "24h")],
        ("cards", "count_distinct", "card_id", "24h"), ("customers", "count_distinct", "customer_id", "24h"),
        ("top", "max", "amount", "24h"), ("waited", "seconds_since_last", "", "24h"),
    )  # fmt: skip
    table = TableView("kyc", "customer", "customer_id", 62 * DAY * 1000, tuple(f"kyc_{n}" for n in range(7)))
    made = Declarations(
        attributes=(
            Attribute("entry_mode", "category", {"chip": 0, "contactless": 1, "magstripe": 2}),
            Attribute("email_domain", "text"), Attribute("tip", "number"),
        ),
        measures=(Measure("is_ecom", "channel == 'ecom'"), Measure("is_small", "amount < 200.0")),
        streams=(card, customer, email), tables=(table,),
    )  # fmt: skip
    names = tuple([name for name, _ in made.features()])
    return Declarations(
        made.attributes, made.measures, made.streams, made.tables, (), (Service("more", names),), names
    )


def prices() -> list[dict[str, Any]]:
    """The price of each feature of `PRICED` at each of `PACES`."""
    return [_price(*each, pace) for each in PRICED for pace in PACES]


def _price(function: Function, column: str, window: int, pace: int) -> dict[str, Any]:
    layout = layout_of(
        StreamView("v", "e", "customer_id", 30 * DAY, (Aggregate("f", function, column, window),))
    )
    draw = np.random.default_rng(pace)
    count = min(int(pace * min(layout.retention_ms + DAY, 30 * DAY) / DAY) + 20, 8_000)
    times = (START + np.arange(count) * (DAY // pace)).tolist()
    amounts = np.round(draw.lognormal(7, 1.5, count)).tolist()
    different = draw.integers(1, max(count // 2, 2), count).tolist()
    seen = [
        DeclaredSeen(
            at, layout.record.pack(at, number << 33 | number & 1, *[amount] * len(layout.values),
                                   *[key.to_bytes(6, "little")] * len(layout.tables))
        )
        for number, (at, amount, key) in enumerate(zip(times, amounts, different, strict=True))
    ]  # fmt: skip
    state = DeclaredState(layout)
    for one in seen:  # what is compiled on first use is no price
        state.add(one)
    state = DeclaredState(layout)
    begun = time.process_time()
    for one in seen:
        state.add(one)
    add_us = (time.process_time() - begun) / count
    state = DeclaredState(layout)
    begun = time.process_time()
    for one in seen:
        state.add(one)
        state.pack()
    replay = time.process_time() - begun
    data = state.pack()
    words, ends = np.frombuffer(data, dtype=np.int64), np.array([0, len(data) // 8])
    hashes, asked = np.zeros((1, len(layout.tables)), np.int64), np.zeros((1, len(layout.values)))
    at, matrix, shape = np.array([times[-1] + 1]), np.empty((1, 1)), layout.shape
    repeats = 300

    def read() -> None:
        read_states(words, ends, shape, layout.operations, at, layout.ttl_ms, hashes, asked, matrix)

    read()
    begun = time.process_time()
    for _ in range(repeats):
        read()
    read_us = (time.process_time() - begun) / repeats
    return {
        "function": function, "window_s": window // 1000, "events_a_day": pace, "state_bytes": len(data),
        "most_bytes": layout.most_bytes(), "add_us": round(1e6 * add_us, 1),
        "read_us": round(1e6 * read_us, 1),
        "backfill_s_per_million": round(1e6 * replay / count, 1),
    }  # fmt: skip


def stream_with_forty(count: int = 12_000, turns: int = 3) -> dict[str, Any]:
    """Processor time of the stream's own work (parse, observe, add, pack) without and with forty features."""
    draw = np.random.default_rng(1)
    payloads: list[list[bytes]] = [[], []]
    for event in events(Load(count, customers=2_000, step_ms=4_000), 1):
        plain = event.payload
        mode = ("chip", "contactless", "magstripe")[draw.integers(3)]
        more = b',"attributes":{"entry_mode":"%b","email_domain":"%d.example","tip":%d}}' % (
            mode.encode(), draw.integers(300), draw.integers(500),
        )  # fmt: skip
        payloads[0].append(plain)
        payloads[1].append(plain[:-1] + more if plain.endswith(b"}") else plain)
    own = Declared(forty())
    taken = [min(_stream(each, kind) for _ in range(turns)) for each, kind in
             ((payloads[0], NOTHING), (payloads[1], own))]  # fmt: skip
    return {
        "features": len(own.declarations.order), "events": count,
        "us_per_event": round(1e6 * taken[0] / count, 1),
        "us_per_event_with": round(1e6 * taken[1] / count, 1),
        "stream_ratio": round(taken[0] / taken[1], 3), "target": 0.7,
    }  # fmt: skip


def _stream(payloads: list[bytes], own: Declared) -> float:
    ingest = Ingest(0, 1_000_000, 30 * DAY, declared=own)
    tracks = tracks_of(own)
    states: dict[tuple[int, str], Any] = {}
    begun = time.process_time()
    for first in range(0, len(payloads), 500):
        part = payloads[first : first + 500]
        positions = [f"{first + number}" for number in range(len(part))]
        found = ingest.take(Batch(part, positions, [0] * len(part)))
        for batch in found.updates:
            place = batch.shard // SHARDS
            track, touched = tracks[place], {}
            for value, seen in zip(batch.values, batch.seen, strict=True):
                state = states.get((place, value))
                if state is None:
                    state = states[place, value] = track.new()
                track.add(state, seen, place)
                touched[value] = state
            for state in touched.values():
                state.pack()
    return time.process_time() - begun
