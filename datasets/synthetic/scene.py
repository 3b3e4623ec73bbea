"""Where and when thieves strike: what every attack pattern draws from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from datasets.synthetic.genuine import DAY_MS, HOUR_MS, Addresses, home_ip
from datasets.synthetic.rows import Array, Floats, Ints, Rows
from datasets.synthetic.world import VPN_IPS, World

MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class Scene:
    """The world since `origin_ms`, its honest transactions, and the span that is under attack.

    Attacks begin in ``[start_ms, end_ms)``; times are milliseconds since 1970 UTC.
    """

    world: World
    genuine: Rows
    places: Addresses
    origin_ms: int
    start_ms: int
    end_ms: int
    rng: np.random.Generator
    _devices: int = field(default=0)
    _ips: int = field(default=0)

    def victims(self, count: int, among: Array | None = None) -> Ints:
        """Positions of `count` honest transactions, each the occasion of an attack."""
        chosen = self.rng.random(count)
        if among is None:
            return (chosen * len(self.genuine)).astype(np.int64)
        return among[(chosen * len(among)).astype(np.int64)]

    def moments(self, count: int) -> Ints:
        """Times at random, a third of them in the small hours."""
        day = self.rng.integers(0, max(1, (self.end_ms - self.start_ms) // DAY_MS), count)
        hour = np.where(
            self.rng.random(count) < 0.33, self.rng.uniform(0, 5.5, count), self.rng.uniform(0, 24, count)
        )
        return self.start_ms + day * DAY_MS + (hour * HOUR_MS).astype(np.int64)

    def fresh_devices(self, count: int) -> Ints:
        """Devices never seen before."""
        first = self.places.first_fresh_device + self._devices
        self._devices += count
        return np.arange(first, first + count)

    def hiding_ips(self, event_ms: Ints) -> Ints:
        """Where thieves come from: private networks, hijacked homes, addresses of their own."""
        count = len(event_ms)
        vpn = self.places.first_vpn + (self.rng.random(count) * VPN_IPS).astype(np.int64)
        someone = (self.rng.random(count) * self.world.customers).astype(np.int64)
        hijacked = home_ip(self.world, self.places, self.origin_ms, someone, event_ms)
        own = self.places.first_fresh_ip + self._ips + np.arange(count)
        self._ips += count
        which = self.rng.random(count)
        return np.where(which < 0.35, vpn, np.where(which < 0.6, hijacked, own))

    def card_of(self, customer: Ints) -> Ints:
        """One of each customer's cards."""
        cards = self.world.cards[customer]
        return self.world.first_card[customer] + (self.rng.random(len(customer)) * cards).astype(np.int64)

    def spread(self, size: Ints, minutes: Floats) -> Ints:
        """Milliseconds into each attack of `size` transactions that lasts `minutes`; first is 0."""
        first = np.cumsum(size) - size
        offset = self.rng.random(int(size.sum())) * np.repeat(minutes, size) * MINUTE_MS
        offset[first] = 0
        return offset.astype(np.int64)


def sizes(wanted: int, smallest: int, largest: int, rng: np.random.Generator) -> Ints:
    """Sizes of attacks, `smallest` to `largest` each, that add up to `wanted` (the last is cut)."""
    if wanted <= 0:
        return np.zeros(0, dtype=np.int64)
    drawn = rng.integers(smallest, largest + 1, wanted // smallest + 1)
    total = np.cumsum(drawn)
    last = int(np.searchsorted(total, wanted))
    drawn = drawn[: last + 1]
    drawn[-1] -= total[last] - wanted
    return drawn
