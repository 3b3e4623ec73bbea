"""Attacks with copied cards: one crooked terminal, or one card in two places at once."""

from __future__ import annotations

import numpy as np

from datasets.synthetic import rows as r
from datasets.synthetic.genuine import DAY_MS, purchase_cents
from datasets.synthetic.places import CITIES
from datasets.synthetic.rows import Array, Floats, Ints, Rows, as_ints, block
from datasets.synthetic.scene import MINUTE_MS, Scene, sizes
from datasets.synthetic.world import CITY_COUNTRY, CITY_DISTANCE, CITY_WEIGHT


def compromised_terminal(scene: Scene, wanted: int) -> Rows:
    """Copied cards are drained at one terminal whose owner looks away, in bursts over days."""
    rng, world = scene.rng, scene.world
    size = sizes(wanted, 20, 60, rng)
    attack = np.repeat(np.arange(len(size)), size)
    count = len(attack)
    shop_rows = np.flatnonzero(scene.genuine.channel == r.POS)
    place = scene.victims(len(size), shop_rows)
    start = scene.moments(len(size))
    burst = rng.integers(0, np.maximum(size // 5, 1)[attack])  # bursts of about five
    days = rng.uniform(3, 11, len(size))
    burst_start = start[attack] + _of_burst(attack, burst, days, scene)
    when = burst_start + (rng.random(count) * 35 * MINUTE_MS).astype(np.int64)
    customer = scene.genuine.customer[scene.victims(count)]
    merchant = scene.genuine.merchant[place][attack]
    cents = purchase_cents(world, customer, merchant, rng) * rng.lognormal(np.log(2.5), 0.5, count)
    terminal = scene.genuine.terminal[place][attack]
    return _present(scene, r.TERMINAL, attack, when, customer, merchant, terminal, cents, r.POS)


def impossible_travel(scene: Scene, wanted: int) -> Rows:
    """A copied card is used far away, minutes to hours after its owner used it at home."""
    rng, world = scene.rng, scene.world
    size = sizes(wanted, 1, 4, rng)
    attack = np.repeat(np.arange(len(size)), size)
    at_terminal = np.flatnonzero(scene.genuine.terminal != r.NONE)
    last = scene.victims(len(size), at_terminal)
    merchant_home = world.merchant_city[scene.genuine.merchant[last]]
    goal = rng.choice(len(CITIES), len(size), p=CITY_WEIGHT**0.3 / (CITY_WEIGHT**0.3).sum())
    near = CITY_DISTANCE[merchant_home, goal] < 1500
    goal = np.where(near, np.argmax(CITY_DISTANCE[merchant_home], axis=1), goal)
    cash = rng.random(len(attack)) < 0.4
    merchant = np.where(
        cash,
        world.banks.draw(goal[attack], rng.random(len(attack))),
        world.shops.draw(goal[attack], rng.random(len(attack))),
    )
    wait = rng.uniform(4, 75, len(size)) * MINUTE_MS
    when = (scene.genuine.event_ms[last] + wait.astype(np.int64))[attack]
    when = when + scene.spread(size, rng.uniform(5, 60, len(size)))
    customer = scene.genuine.customer[last][attack]
    cents = purchase_cents(world, customer, merchant, rng) * rng.lognormal(np.log(1.8), 0.5, len(attack))
    terminal = world.terminal_of(merchant, rng.random(len(attack)))
    channel = np.where(cash, r.ATM, r.POS)
    rows = _present(scene, r.TRAVEL, attack, when, customer, merchant, terminal, cents, channel)
    rows.card[:] = scene.genuine.card[last][attack]
    return rows


def _of_burst(attack: Ints, burst: Ints, days: Floats, scene: Scene) -> Ints:
    """Milliseconds from the start of the attack to each row's burst; one draw per burst."""
    key = attack * 1_000 + burst
    distinct, inverse = np.unique(key, return_inverse=True)
    offset = scene.rng.random(len(distinct)) * days[distinct // 1_000] * DAY_MS
    return as_ints(offset[inverse])


def _present(
    scene: Scene,
    kind: int,
    episode: Ints,
    event_ms: Ints,
    customer: Ints,
    merchant: Ints,
    terminal: Ints,
    cents: Floats,
    channel: Array | int,
) -> Rows:
    """Rows at a terminal, with its position."""
    return block(
        len(event_ms), event_ms=event_ms, customer=customer, card=scene.card_of(customer), merchant=merchant,
        terminal=terminal, cents=cents, channel=channel,
        country=CITY_COUNTRY[scene.world.merchant_city[merchant]],
        latitude=scene.world.terminal_latitude[terminal], longitude=scene.world.terminal_longitude[terminal],
        kind=kind, episode=episode,
    )  # fmt: skip
