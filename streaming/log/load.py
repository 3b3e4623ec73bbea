"""A seeded load for the event log: a few thousand entities, with the faults that happen in life.

Meant for rehearsals, benchmarks and tests of the flow, not for models: amounts and merchants
are drawn at random. `datasets/` has the generator with fraud in it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

import msgspec

from fraud.contract.transaction import Transaction, encode_transaction
from stores.event_log import partition_of
from stores.settings import settings
from streaming.log.publish import open_writer

_START: Final = datetime(2026, 3, 1, tzinfo=UTC)
_COUNTRIES: Final = ("DE", "FR", "NL", "PL", "IT")

Kind = Literal["new", "late", "duplicate", "broken"]


@dataclass(frozen=True, slots=True)
class Load:
    """What to publish: `events` per seed, of which shares are duplicates, late or broken.

    Event times start at `start` and advance `step_ms` an event; late ones lie up to
    `lateness_ms` behind.
    """

    events: int
    seed: int = 1
    customers: int = 2_000
    merchants: int = 500
    duplicates: float = 0.0
    late: float = 0.0
    broken: float = 0.0
    step_ms: int = 50
    lateness_ms: int = 600_000
    start: datetime = _START


@dataclass(frozen=True, slots=True)
class Event:
    """One payload for the log. `transaction` is None for a broken one."""

    kind: Kind
    partition: int
    payload: bytes
    transaction: Transaction | None


def events(load: Load, partitions: int) -> Iterator[Event]:
    """The events of `load`, in publishing order; the same for the same seed."""
    draw = random.Random(load.seed)
    recent: list[Event] = []
    for index in range(load.events):
        chance = draw.random()
        if recent and chance < load.duplicates:
            yield replace(draw.choice(recent), kind="duplicate")
            continue
        chance -= load.duplicates
        behind = draw.randrange(1, load.lateness_ms) if 0 <= chance < load.late else 0
        transaction = _transaction(draw, load, index, behind)
        partition = partition_of(transaction.customer_id, partitions)
        payload = encode_transaction(transaction)
        if 0 <= chance - load.late < load.broken:
            yield Event("broken", partition, _broken(draw, payload), None)
            continue
        event = Event("late" if behind else "new", partition, payload, transaction)
        recent.append(event)
        if len(recent) > 500:
            recent.pop(0)
        yield event


def _transaction(draw: random.Random, load: Load, index: int, behind_ms: int) -> Transaction:
    customer = draw.randrange(load.customers)
    moment = load.start + timedelta(milliseconds=index * load.step_ms - behind_ms)
    online = draw.random() < 0.4
    return Transaction(
        transaction_id=f"load-{load.seed}-{index:09d}",
        event_time=moment,
        customer_id=f"customer-{customer}",
        card_id=f"card-{customer}-{draw.randrange(2)}",
        merchant_id=f"merchant-{draw.randrange(load.merchants)}",
        amount=Decimal(draw.randrange(100, 50_000)).scaleb(-2),
        currency="EUR",
        channel="ecom" if online else "pos",
        terminal_id=None if online else f"terminal-{draw.randrange(load.merchants * 2)}",
        device_id=f"device-{customer}-{draw.randrange(2)}",
        ip=f"10.{customer >> 8 & 255}.{customer & 255}.{draw.randrange(3)}",
        merchant_category=str(5_000 + draw.randrange(40)),
        country=draw.choice(_COUNTRIES),
        latitude=round(47 + draw.random() * 6, 5),
        longitude=round(4 + draw.random() * 12, 5),
    )


def _broken(draw: random.Random, payload: bytes) -> bytes:
    fields = msgspec.json.decode(payload)
    fault = draw.randrange(4)
    if fault == 0:
        return payload[: len(payload) // 2]
    if fault == 1:
        del fields["amount"]
    elif fault == 2:
        fields["currency"] = "XXX"
    else:
        fields["event_time"] = fields["event_time"].rstrip("Z")
    return msgspec.json.encode(fields)


def main(arguments: list[str] | None = None) -> int:
    """Publish a seeded load to the configured event log, at a steady rate if one is given."""
    parser = argparse.ArgumentParser(prog="python -m streaming.log.load", description=main.__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=0, help="events a second; 0: unbounded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--customers", type=int, default=2_000)
    parser.add_argument("--duplicates", type=float, default=0.0, help="share, 0 to 1")
    parser.add_argument("--late", type=float, default=0.0, help="share, 0 to 1")
    parser.add_argument("--broken", type=float, default=0.0, help="share, 0 to 1")
    chosen = parser.parse_args(arguments)
    load = Load(
        chosen.events, chosen.seed, chosen.customers,
        duplicates=chosen.duplicates, late=chosen.late, broken=chosen.broken,
    )  # fmt: skip
    configured = settings()
    began = time.perf_counter()
    with open_writer(configured) as writer:
        for index, event in enumerate(events(load, configured.event_log.partitions)):
            if chosen.rate:
                wait = began + index / chosen.rate - time.perf_counter()
                if wait > 0:
                    writer.flush()
                    time.sleep(wait)
            writer.publish_raw(event.partition, event.payload)
    print(f"{load.events} events in {time.perf_counter() - began:.1f} s to {configured.event_log.topic}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
