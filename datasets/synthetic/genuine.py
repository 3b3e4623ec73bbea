"""What honest cardholders do: habits, trips, sprees, large purchases, new telephones.

Much of it looks like fraud on purpose: a trip is a new country, a spree a burst of small
payments, a kitchen an amount ten times the usual, a new telephone a new device at a new address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from datasets.synthetic.places import CATEGORIES, CITIES, COUNTRIES
from datasets.synthetic.rows import (
    ATM,
    ECOM,
    MOTO,
    NONE,
    POS,
    TRANSFER,
    Array,
    Floats,
    Ints,
    Rows,
    as_ints,
    block,
)
from datasets.synthetic.world import (
    CARRIER_IPS,
    CITY_COUNTRY,
    CITY_DISTANCE,
    CITY_LATITUDE,
    CITY_LONGITUDE,
    CITY_WEIGHT,
    DEVICES_EACH,
    FAVOURITES_NEAR,
    FAVOURITES_ONLINE,
    PUBLIC_DEVICES,
    VPN_IPS,
    World,
)

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
#: Every customer may travel once in each slot of this length.
TRIP_SLOT_MS: Final = 30 * DAY_MS
TRIP_SHARE: Final = 0.22
AIRLINER_KMH: Final = 750.0

_MEDIAN_LOG: Final = np.log([kind.median * 100 for kind in CATEGORIES])
_SIGMA: Final = np.array([kind.sigma for kind in CATEGORIES])


@dataclass(frozen=True, slots=True)
class OnlineShift:
    """From `from_ms` on, a share `of_shops` of purchases in shops is made online instead."""

    from_ms: int
    of_shops: float


@dataclass(frozen=True, slots=True)
class Addresses:
    """Codes of devices and internet addresses: each range follows the one before.

    Devices: three per customer, then public ones, then a fresh one per thief. Addresses: the
    carriers' shared pools, private networks (VPN), then homes (one per lease), then thieves' own.
    """

    customers: int
    leases: int

    @property
    def first_public_device(self) -> int:
        return self.customers * DEVICES_EACH

    @property
    def first_fresh_device(self) -> int:
        return self.first_public_device + PUBLIC_DEVICES

    @property
    def first_vpn(self) -> int:
        return CARRIER_IPS * len(COUNTRIES)

    @property
    def first_home(self) -> int:
        return self.first_vpn + VPN_IPS

    @property
    def first_fresh_ip(self) -> int:
        return self.first_home + self.customers * self.leases


def addresses(world: World, days: int) -> Addresses:
    """The ranges of codes for a world that is watched for `days` days."""
    return Addresses(world.customers, int(days * DAY_MS // int(world.lease_ms.min())) + 2)


def genuine(
    world: World,
    start_ms: int,
    days: int,
    rng: np.random.Generator,
    shift: OnlineShift | None = None,
) -> Rows:
    """Every honest transaction of `days` days from `start_ms`, in no particular order."""
    count = rng.poisson(world.rate * days)
    customer = np.repeat(np.arange(world.customers), count)
    event_ms = start_ms + _times(world, customer, days, rng)
    customer, event_ms = _with_sprees(customer, event_ms, rng)
    city, abroad, in_flight = _whereabouts(world, customer, event_ms, start_ms, days, rng)
    online_share = world.online[customer]
    if shift is not None:
        shifted = online_share + shift.of_shops * 0.85 * (1 - online_share)
        online_share = np.where(event_ms >= shift.from_ms, shifted, online_share)
    channel = _channels(online_share, rng)
    kept = ~(in_flight & ((channel == POS) | (channel == ATM)))
    customer, event_ms, city, abroad, channel = (
        values[kept] for values in (customer, event_ms, city, abroad, channel)
    )
    return _purchases(world, start_ms, days, customer, event_ms, city, abroad, channel, rng)


def purchase_cents(world: World, customer: Ints, merchant: Ints, rng: np.random.Generator) -> Floats:
    """What `customer` would usually spend at `merchant`, in reference cents."""
    category = world.category[merchant]
    noise = rng.normal(0, 1, len(customer)) * _SIGMA[category]
    return np.asarray(
        np.exp(_MEDIAN_LOG[category] + world.spend[customer] + world.level[merchant] + noise), np.float64
    )


def home_ip(world: World, places: Addresses, start_ms: int, customer: Ints, event_ms: Ints) -> Ints:
    """The address of the customer's household at that time; providers renew it now and then."""
    house = world.household[customer]
    lease = (event_ms - start_ms + (house * 7_919) % 40 * DAY_MS // 8) // world.lease_ms[house]
    return as_ints(places.first_home + house * places.leases + np.minimum(lease, places.leases - 1))


def _times(world: World, customer: Ints, days: int, rng: np.random.Generator) -> Ints:
    """Milliseconds since the start: busier on one day of the week, around each customer's own hour.

    The week is counted from the start, not by the calendar: one seed makes one history, whenever it begins.
    """
    weekday = (np.arange(days) + 3) % 7
    weight = np.where(weekday == 5, 1.2, np.where(weekday == 6, 0.85, 1.0))
    day = rng.choice(days, len(customer), p=weight / weight.sum())
    habit = rng.normal(world.peak[customer], 3.2)
    any_hour = rng.uniform(0, 24, len(customer))
    daytime = rng.uniform(7, 23, len(customer))
    which = rng.random(len(customer))
    hour = np.where(which < 0.68, habit, np.where(which < 0.95, daytime, any_hour))
    hour = (hour - CITY_LONGITUDE[world.city[customer]] / 15) % 24
    return as_ints(day * DAY_MS + (hour * HOUR_MS).astype(np.int64))


def _with_sprees(customer: Ints, event_ms: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Some purchases turn into sprees: 2 to 11 more within the next half hour to three hours."""
    starts = np.flatnonzero(rng.random(len(customer)) < 0.008)
    more = 2 + np.minimum(rng.geometric(0.35, len(starts)), 9)
    pace = rng.choice([0.5, 1.0, 3.0], len(starts))
    seed = np.repeat(starts, more)
    later = (rng.random(len(seed)) * np.repeat(pace, more) * HOUR_MS).astype(np.int64) + 20_000
    return np.concatenate([customer, customer[seed]]), np.concatenate([event_ms, event_ms[seed] + later])


def _whereabouts(
    world: World, customer: Ints, event_ms: Ints, start_ms: int, days: int, rng: np.random.Generator
) -> tuple[Ints, Array, Array]:
    """The city each customer is in, whether that is on a trip, and whether on the way."""
    slots = int(days * DAY_MS // TRIP_SLOT_MS) + 1
    shape = (world.customers, slots)
    goes = rng.random(shape) < TRIP_SHARE
    length = rng.uniform(1.5, 8, shape) * DAY_MS
    leaves = rng.random(shape) * (TRIP_SLOT_MS - length)
    goal = rng.choice(len(CITIES), shape, p=_holiday_weights())
    since = event_ms - start_ms
    slot = since // TRIP_SLOT_MS
    within = (since % TRIP_SLOT_MS) - leaves[customer, slot]
    stay = length[customer, slot]
    travels = goes[customer, slot]
    home = world.city[customer]
    there = goal[customer, slot]
    flight = (CITY_DISTANCE[home, there] / AIRLINER_KMH + 0.7) * HOUR_MS
    abroad = travels & (within >= flight) & (within < stay) & (there != home)
    on_the_way = travels & (
        ((within >= 0) & (within < flight)) | ((within >= stay) & (within < stay + flight))
    )
    # Now and then a terminal books late: an honest trip that looks faster than any airliner.
    on_the_way &= rng.random(len(customer)) >= 0.04
    return np.where(abroad, there, home), abroad, on_the_way


def _holiday_weights() -> Floats:
    weights = np.sqrt(CITY_WEIGHT) + 0.05
    return np.asarray(weights / weights.sum(), np.float64)


def _channels(online_share: Floats, rng: np.random.Generator) -> Array:
    uniform = rng.random(len(online_share))
    rest = (uniform - online_share) / (1 - online_share)
    other = np.select([rest < 0.85, rest < 0.965, rest < 0.99], [POS, ATM, MOTO], TRANSFER)
    return np.where(uniform < online_share, ECOM, other)


def _purchases(
    world: World,
    start_ms: int,
    days: int,
    customer: Ints,
    event_ms: Ints,
    city: Ints,
    abroad: Array,
    channel: Array,
    rng: np.random.Generator,
) -> Rows:
    """Choose merchant, terminal, device, address and amount of each purchase."""
    count = len(customer)
    present = (channel == POS) | (channel == ATM)
    favourite = (rng.random(count) < 0.72) & ~abroad
    rank = rng.random(count) ** 2
    near = world.near[customer, (rank * FAVOURITES_NEAR).astype(np.int64)]
    far = world.far[customer, (rank * FAVOURITES_ONLINE).astype(np.int64)]
    any_near = world.shops.draw(city, rng.random(count))
    any_far = world.online_shops.draw_anywhere(rng.random(count))
    bank = world.banks.draw(city, rng.random(count))
    shop = np.where(favourite, near, any_near)
    seller = np.where(rng.random(count) < 0.72, far, any_far)
    merchant = np.select([channel == ATM, channel == POS], [bank, shop], seller)
    uniform = rng.random(count)
    terminal = np.where(present, world.terminal_of(merchant, np.where(present, uniform, 0)), NONE)

    cents = purchase_cents(world, customer, merchant, rng)
    large = rng.random(count) < 0.004
    cents = np.where(large, cents * rng.uniform(3, 14, count), cents)
    cents = np.where((channel == ECOM) & (rng.random(count) < 0.004), 0, cents)  # card verification

    places = addresses(world, days)
    device, ip = _online_identity(world, places, start_ms, customer, event_ms, city, rng)
    remote = channel == ECOM
    device = np.where(remote & (rng.random(count) >= 0.05), device, NONE)
    ip = np.where(remote, ip, NONE)
    latitude, longitude = position(world, terminal, city, remote, rng)
    return block(
        count,
        event_ms=event_ms,
        customer=customer,
        card=world.first_card[customer] + (rng.random(count) < 0.3) * (world.cards[customer] - 1),
        merchant=merchant,
        terminal=terminal,
        device=device,
        ip=ip,
        cents=cents,
        channel=channel,
        country=CITY_COUNTRY[city],
        latitude=latitude,
        longitude=longitude,
    )


def position(
    world: World, terminal: Ints, city: Ints, remote: Array, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Degrees of the terminal; online, for a third, of where the address is thought to be."""
    count = len(terminal)
    at = np.maximum(terminal, 0)
    located = rng.random(count) < 0.35
    jitter = rng.normal(0, 0.25, (2, count))
    latitude = np.where(remote & located, CITY_LATITUDE[city] + jitter[0], np.nan)
    longitude = np.where(remote & located, CITY_LONGITUDE[city] + jitter[1], np.nan)
    present = terminal != NONE
    return (
        np.where(present, world.terminal_latitude[at], latitude),
        np.where(present, world.terminal_longitude[at], longitude),
    )


def _online_identity(
    world: World,
    places: Addresses,
    start_ms: int,
    customer: Ints,
    event_ms: Ints,
    city: Ints,
    rng: np.random.Generator,
) -> tuple[Ints, Ints]:
    """Device and address of an online purchase: mostly one's own, sometimes shared."""
    count = len(customer)
    first = np.where(event_ms >= world.switch_ms[customer], 2, 0)
    own = customer * DEVICES_EACH + np.where(rng.random(count) < 0.8, first, 1)
    family = world.household[customer] * DEVICES_EACH + 1
    public = places.first_public_device + (rng.random(count) * PUBLIC_DEVICES).astype(np.int64)
    which = rng.random(count)
    device = np.where(which < 0.03, family, np.where(which < 0.034, public, own))
    carrier = CITY_COUNTRY[city] * CARRIER_IPS + (rng.random(count) * CARRIER_IPS).astype(np.int64)
    vpn = places.first_vpn + (rng.random(count) * VPN_IPS).astype(np.int64)
    which = rng.random(count)
    home = home_ip(world, places, start_ms, customer, event_ms)
    away = city != world.city[customer]
    ip = np.where(which < 0.04, vpn, np.where((which < 0.30) | away, carrier, home))
    return device, ip
