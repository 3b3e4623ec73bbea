"""The population: customers, cards, merchants, terminals, devices and addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from datasets.synthetic.places import CASH, CATEGORIES, CITIES, COUNTRIES
from datasets.synthetic.rows import Array, Floats, Ints, as_ints

FAVOURITES_NEAR: Final = 8
FAVOURITES_ONLINE: Final = 6
#: Devices reserved per customer: two in use, one that may replace the first.
DEVICES_EACH: Final = 3
PUBLIC_DEVICES: Final = 40
CARRIER_IPS: Final = 40
VPN_IPS: Final = 300

CITY_LATITUDE: Final = np.array([city.latitude for city in CITIES])
CITY_LONGITUDE: Final = np.array([city.longitude for city in CITIES])
CITY_COUNTRY: Final = np.array([COUNTRIES.index(city.country) for city in CITIES])
CITY_WEIGHT: Final = np.array([city.weight for city in CITIES]) / sum(city.weight for city in CITIES)


def distance_km(latitude: Floats, longitude: Floats, latitude2: Floats, longitude2: Floats) -> Floats:
    """Great-circle distance in km between places given in degrees (haversine formula)."""
    a, b, c, d = (np.radians(values) for values in (latitude, longitude, latitude2, longitude2))
    half = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    return np.asarray(12742.0176 * np.arcsin(np.sqrt(np.clip(half, 0, 1))), dtype=np.float64)


#: km between every two cities.
CITY_DISTANCE: Final = distance_km(
    CITY_LATITUDE[:, None], CITY_LONGITUDE[:, None], CITY_LATITUDE[None, :], CITY_LONGITUDE[None, :]
)


class Stock:
    """Merchants on offer, by city, drawn in proportion to their popularity."""

    def __init__(self, members: Ints, city: Ints, weight: Floats) -> None:
        order = np.argsort(city[members], kind="stable")
        self.members = members[order]
        self._cumulative = np.cumsum(weight[self.members])
        cities = np.arange(len(CITIES))
        self._first = np.searchsorted(city[self.members], cities, side="left")
        self._last = np.searchsorted(city[self.members], cities, side="right")
        padded = np.concatenate([[0.0], self._cumulative])
        self._low, self._high = padded[self._first], padded[self._last]

    def draw(self, city: Array, uniform: Floats) -> Ints:
        """One merchant of each `city`, by `uniform` numbers in [0, 1)."""
        target = self._low[city] + uniform * (self._high[city] - self._low[city])
        place = np.searchsorted(self._cumulative, target, side="right")
        return as_ints(self.members[np.clip(place, self._first[city], self._last[city] - 1)])

    def draw_anywhere(self, uniform: Floats) -> Ints:
        """One merchant of any city."""
        place = np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right")
        return as_ints(self.members[np.minimum(place, len(self.members) - 1)])


@dataclass(frozen=True, slots=True)
class World:
    """Everybody and everything, as parallel arrays indexed by customer, merchant or terminal.

    Customers: `city` of home, `rate` of transactions a day, `spend` (log of how freely),
    `online` share of purchases, `peak` local hour, `first_card` and `cards`, `household` (whose
    home address and family device are used), `switch_ms` when the first device is replaced,
    `lease_ms` how long an internet address is kept, and favourite merchants.
    Merchants: `merchant_city`, `category`, `level` (log of price), `first_terminal`, `terminals`.
    """

    city: Ints
    rate: Floats
    spend: Floats
    online: Floats
    peak: Floats
    first_card: Ints
    cards: Ints
    household: Ints
    switch_ms: Ints
    lease_ms: Ints
    near: Ints
    far: Ints
    merchant_city: Ints
    category: Ints
    level: Floats
    first_terminal: Ints
    terminals: Ints
    terminal_latitude: Floats
    terminal_longitude: Floats
    shops: Stock
    banks: Stock
    online_shops: Stock
    risky_shops: Stock
    cheap_shops: Stock

    @property
    def customers(self) -> int:
        return len(self.city)

    @property
    def merchants(self) -> int:
        return len(self.merchant_city)

    def terminal_of(self, merchant: Ints, uniform: Floats) -> Ints:
        """A terminal of each `merchant`; only merchants that are not online have any."""
        return self.first_terminal[merchant] + (uniform * self.terminals[merchant]).astype(np.int64)

    def terminal_merchant(self) -> Ints:
        """The merchant of each terminal."""
        return np.repeat(np.arange(self.merchants), self.terminals)


def build_world(customers: int, start_ms: int, days: int, rng: np.random.Generator) -> World:
    """A world of `customers` cardholders whose devices and addresses change over `days` days."""
    merchant_city, category, online = _merchants(300 + int(customers * 0.4), rng)
    merchants = len(category)
    level = rng.normal(0, 0.25, merchants)
    popularity = rng.pareto(1.6, merchants) + 0.3
    terminals = np.where(online, 0, 1 + rng.poisson(np.where(category == CASH, 4, 1.2)))
    first_terminal = np.concatenate([[0], np.cumsum(terminals)[:-1]])
    home = np.repeat(merchant_city, terminals)

    risk = np.array([kind.risk for kind in CATEGORIES])[category]
    cheap = np.isin(category, [place for place, kind in enumerate(CATEGORIES) if kind.median <= 20])
    everyone = np.arange(merchants)
    shops = Stock(everyone[~online & (category != CASH)], merchant_city, popularity)
    sellers = everyone[online]
    online_shops = Stock(sellers, merchant_city, popularity)

    city = rng.choice(len(CITIES), customers, p=CITY_WEIGHT)
    cards = 1 + (rng.random(customers) < 0.25).astype(np.int64)
    household = np.arange(customers)
    joined = rng.random(customers) < 0.12  # lives with the customer before, when in the same city
    joined[1:] &= city[1:] == city[:-1]
    joined[:1] = False
    household[joined] -= 1
    day_ms = 86_400_000
    return World(
        city=city,
        rate=2.02 * rng.gamma(2.2, 1 / 2.2, customers),
        spend=rng.normal(0, 0.35, customers),
        online=rng.beta(2, 4, customers),
        peak=rng.normal(14.5, 2, customers),
        first_card=np.concatenate([[0], np.cumsum(cards)[:-1]]),
        cards=cards,
        household=household,
        switch_ms=start_ms + (rng.random(customers) * 300 * day_ms).astype(np.int64) // 1,
        lease_ms=(rng.uniform(4, 40, customers) * day_ms).astype(np.int64),
        near=_favourites(shops, city, FAVOURITES_NEAR, rng),
        far=online_shops.draw_anywhere(rng.random((customers, FAVOURITES_ONLINE))),
        merchant_city=merchant_city,
        category=category,
        level=level,
        first_terminal=first_terminal,
        terminals=terminals,
        terminal_latitude=CITY_LATITUDE[home] + rng.normal(0, 0.05, len(home)),
        terminal_longitude=CITY_LONGITUDE[home] + rng.normal(0, 0.05, len(home)),
        shops=shops,
        banks=Stock(everyone[category == CASH], merchant_city, popularity),
        online_shops=online_shops,
        risky_shops=Stock(sellers, merchant_city, popularity**0.5 * risk),
        cheap_shops=Stock(everyone[online & cheap], merchant_city, popularity**0.5),
    )


def _merchants(count: int, rng: np.random.Generator) -> tuple[Ints, Ints, Array]:
    """City, category and whether online of each merchant; every city has a bank and shops."""
    share = np.array([kind.share for kind in CATEGORIES])
    city = rng.choice(len(CITIES), count, p=CITY_WEIGHT)
    category = rng.choice(len(CATEGORIES), count, p=share / share.sum())
    online = rng.random(count) < np.array([kind.online for kind in CATEGORIES])[category]
    basics = 5  # a bank and four kinds of shop, wherever somebody may travel
    city = np.concatenate([city, np.repeat(np.arange(len(CITIES)), basics)])
    category = np.concatenate([category, np.tile(np.arange(basics), len(CITIES))])
    online = np.concatenate([online, np.zeros(basics * len(CITIES), dtype=bool)])
    # ...and something to buy online, even in the smallest world.
    online[np.flatnonzero(category == _index("digital"))] = True
    order = rng.permutation(len(city))  # codes must not tell what a merchant is
    return city[order].astype(np.int64), category[order].astype(np.int64), online[order]


def _favourites(stock: Stock, city: Ints, count: int, rng: np.random.Generator) -> Ints:
    draws = rng.random((count, len(city)))
    return np.stack([stock.draw(city, uniform) for uniform in draws], axis=1)


def _index(name: str) -> int:
    return next(place for place, kind in enumerate(CATEGORIES) if kind.name == name)
