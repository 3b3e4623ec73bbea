"""Attacks on cards that nobody has to hold: testing, takeover, large orders, rings, transfers.

A pattern takes a `Scene` and how many frauds are wanted, and returns that many rows.
"""

from __future__ import annotations

import numpy as np

from datasets.synthetic import rows as r
from datasets.synthetic.genuine import DAY_MS, HOUR_MS, position, purchase_cents
from datasets.synthetic.places import CITIES
from datasets.synthetic.rows import Floats, Ints, Rows, block
from datasets.synthetic.scene import Scene, sizes
from datasets.synthetic.world import CITY_COUNTRY


def card_testing(scene: Scene, wanted: int) -> Rows:
    """A list of stolen cards is tried out with tiny payments at one online shop, in minutes."""
    rng, world = scene.rng, scene.world
    size = sizes(wanted, 8, 40, rng)
    start = scene.moments(len(size))
    lists = np.repeat(np.arange(len(size)), size)
    customer = scene.genuine.customer[scene.victims(len(lists))]
    cents = np.where(rng.random(len(lists)) < 0.15, 0, rng.lognormal(np.log(180), 0.7, len(lists)))
    device = scene.fresh_devices(len(size))[lists]
    ip = scene.hiding_ips(start)[lists]
    shop = world.cheap_shops.draw_anywhere(rng.random(len(size)))
    when = start[lists] + scene.spread(size, rng.uniform(3, 25, len(size)))
    return _remote(scene, r.CARD_TESTING, lists, when, customer, shop[lists], device, ip, cents)


def account_takeover(scene: Scene, wanted: int) -> Rows:
    """Somebody else signs in from a new device and a new address, and shops."""
    rng, world = scene.rng, scene.world
    size = sizes(wanted, 2, 8, rng)
    attack = np.repeat(np.arange(len(size)), size)
    victim = scene.genuine.customer[scene.victims(len(size))][attack]
    start = scene.moments(len(size))
    shop = world.risky_shops.draw_anywhere(rng.random(len(attack)))
    cents = purchase_cents(world, victim, shop, rng) * rng.lognormal(np.log(1.6), 0.6, len(attack))
    device = scene.fresh_devices(len(size))[attack]
    ip = scene.hiding_ips(start)[attack]
    when = start[attack] + scene.spread(size, rng.uniform(8, 110, len(size)))
    return _remote(scene, r.TAKEOVER, attack, when, victim, shop, device, ip, cents)


def high_amount(scene: Scene, wanted: int) -> Rows:
    """One purchase far above the customer's habit, at a shop that sells what thieves sell on."""
    rng, world = scene.rng, scene.world
    victim = scene.genuine.customer[scene.victims(wanted)]
    shop = world.risky_shops.draw_anywhere(rng.random(wanted))
    cents = purchase_cents(world, victim, shop, rng) * rng.lognormal(np.log(6), 0.5, wanted)
    device = np.where(rng.random(wanted) < 0.8, scene.fresh_devices(wanted), r.NONE)
    when = scene.moments(wanted)
    attack = np.arange(wanted)
    ip = scene.hiding_ips(when)
    return _remote(scene, r.HIGH_AMOUNT, attack, when, victim, shop, device, ip, cents)


def merchant_ring(scene: Scene, wanted: int) -> Rows:
    """A few small shops charge round sums to borrowed cards from a handful of devices, for days."""
    rng, world = scene.rng, scene.world
    size = sizes(wanted, 40, 110, rng)
    ring = np.repeat(np.arange(len(size)), size)
    count = len(ring)
    shops = world.online_shops.members[rng.integers(0, len(world.online_shops.members), (len(size), 4))]
    devices = scene.fresh_devices(len(size) * 3).reshape(-1, 3)
    mules = scene.genuine.customer[scene.victims(len(size) * 20)].reshape(-1, 20)
    start = scene.moments(len(size))
    days = rng.uniform(3, 9, len(size))
    sitting = np.floor(rng.random(count) * days[ring])  # the ring meets once a day...
    when = start[ring] + (sitting * DAY_MS + rng.exponential(0.5, count) * HOUR_MS).astype(np.int64)
    customer = mules[ring, rng.integers(0, 20, count)]
    cents = np.round(rng.uniform(80, 480, count) / 5) * 500
    ip = scene.hiding_ips(start)[ring]
    shop = shops[ring, rng.integers(0, 4, count)]
    return _remote(
        scene, r.RING, ring, when, customer, shop, devices[ring, rng.integers(0, 3, count)], ip, cents
    )


def mule_transfer(scene: Scene, wanted: int) -> Rows:
    """From the customer's own device, payments just below a limit go to one payee, in minutes."""
    rng, world = scene.rng, scene.world
    size = sizes(wanted, 3, 7, rng)
    attack = np.repeat(np.arange(len(size)), size)
    seen = scene.victims(len(size), np.flatnonzero(scene.genuine.device != r.NONE))[attack]
    payee = world.online_shops.members[rng.integers(0, len(world.online_shops.members), 6)]
    when = scene.moments(len(size))[attack] + scene.spread(size, rng.uniform(4, 20, len(size)))
    cents = np.round(rng.uniform(850, 995, len(attack))) * 100
    rows = _remote(
        scene, r.MULE, attack, when, scene.genuine.customer[seen],
        payee[rng.integers(0, 6, len(size))][attack], scene.genuine.device[seen], scene.genuine.ip[seen],
        cents,
    )  # fmt: skip
    rows.channel[:] = r.TRANSFER
    return rows


def _remote(
    scene: Scene,
    kind: int,
    episode: Ints,
    event_ms: Ints,
    customer: Ints,
    merchant: Ints,
    device: Ints,
    ip: Ints,
    cents: Floats,
) -> Rows:
    """Online rows; two thirds of the attacks seem to come from another country."""
    rng = scene.rng
    attacks = int(episode.max()) + 1 if len(episode) else 0
    foreign = (rng.random(attacks) < 0.6)[episode]
    elsewhere = rng.choice(len(CITIES), attacks)[episode]
    city = np.where(foreign, elsewhere, scene.world.city[customer])
    nowhere = np.full(len(event_ms), r.NONE)
    latitude, longitude = position(scene.world, nowhere, city, np.ones(len(event_ms), dtype=bool), rng)
    return block(
        len(event_ms), event_ms=event_ms, customer=customer, card=scene.card_of(customer), merchant=merchant,
        device=device, ip=ip, cents=cents, channel=r.ECOM, country=CITY_COUNTRY[city], latitude=latitude,
        longitude=longitude, kind=kind, episode=episode,
    )  # fmt: skip
