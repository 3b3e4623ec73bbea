"""Made-up arrivals for the state's tests: short scripts, and long random streams."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import strategies as st

from fraud.state.observation import Observation, observe_values, pack_location

START_MS = 1_772_323_200_000  # 2026-03-01
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def arrival(
    event_ms: int,
    amount: int = 100,
    *,
    name: str | None = None,
    merchant: int = 0,
    card: int = 0,
    device: int | None = None,
    country: str | None = None,
    place: tuple[float, float] | None = None,
) -> Observation:
    """One observation; without a `name` the transaction is named by its time and amount."""
    return observe_values(
        event_ms,
        amount,
        name or f"{event_ms}/{amount}",
        (
            "customer", f"card-{card}", f"merchant-{merchant}", "terminal",
            None if device is None else f"device-{device}", None,
        ),
        country,
        *(place or (None, None)),
    )  # fmt: skip


_GAPS = st.one_of(
    st.just(0),
    st.sampled_from([1, 59_999, 60_000, 60_001, 300_000, 1_800_000, HOUR, DAY - 1, DAY, DAY + 1, 26 * HOUR]),
    st.integers(0, 2_000),
    st.integers(0, HOUR),
    st.integers(0, 3 * DAY),
    st.integers(25 * DAY, 29 * DAY),
    st.integers(31 * DAY, 60 * DAY),
)
_AMOUNTS = st.one_of(st.integers(0, 20_000), st.sampled_from([0, 1, 2**31 - 1]), st.integers(0, 2**31 - 1))
_PLACES = st.one_of(
    st.none(),
    st.tuples(st.sampled_from([-90.0, 0.0, 12.5, 90.0]), st.sampled_from([-180.0, 0.0, 13.4, 180.0])),
)


@st.composite
def scripts(draw: st.DrawFn, most: int = 60) -> list[Observation]:
    """Up to `most` arrivals with ties, duplicates, lateness of up to two hours, and gaps."""
    clock = START_MS
    arrivals: list[Observation] = []
    for number in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(["next", "next", "next", "late", "again"]))
        if kind == "again" and arrivals:
            arrivals.append(draw(st.sampled_from(arrivals[-5:])))
            continue
        late = draw(st.integers(0, 2 * HOUR)) if kind == "late" else 0
        clock += draw(_GAPS) if not late else 0
        arrivals.append(
            arrival(
                clock - late, draw(_AMOUNTS), name=f"t{number}", merchant=draw(st.integers(0, 9)),
                card=draw(st.integers(0, 9)), device=draw(st.none() | st.integers(0, 3)),
                country=draw(st.sampled_from([None, "DE", "FR"])), place=draw(_PLACES),
            )
        )  # fmt: skip
    return arrivals


@dataclass(frozen=True)
class Stream:
    """A long random stream: `per_day` events a day, some late, some twice, some bursts."""

    seed: int
    events: int
    per_day: float
    late: float = 0.0
    twice: float = 0.0
    sigma: float = 1.0
    bursts: float = 0.0
    cards: int = 200

    def arrivals(self) -> list[Observation]:
        """In order of arrival: a late event comes up to two hours after its time."""
        rng = random.Random(self.seed)
        clock = float(START_MS)
        arriving: list[tuple[float, int, Observation]] = []
        for number in range(self.events):
            if rng.random() >= self.bursts:
                clock += rng.expovariate(self.per_day / DAY)
            seen = arrival(
                int(clock), min(int(rng.lognormvariate(8, self.sigma)), 2**31 - 1), name=f"t{number}",
                merchant=rng.randrange(30), card=rng.randrange(self.cards),
                device=rng.choice([None, 0, 0, 1]), country=rng.choice(["DE", "DE", "FR"]),
                place=(rng.uniform(-80, 80), rng.uniform(-180, 180)),
            )  # fmt: skip
            lateness = rng.uniform(0, 2 * HOUR) if rng.random() < self.late else 0.0
            arriving.append((clock + lateness, number, seen))
            if rng.random() < self.twice:
                arriving.append((clock + lateness + 1, number, seen))
        arriving.sort(key=lambda item: item[:2])
        return [seen for _, _, seen in arriving]


streams = st.builds(
    Stream,
    seed=st.integers(0, 2**32),
    events=st.integers(100, 1_500),
    per_day=st.sampled_from([60.0, 200.0, 1_000.0, 10_000.0, 100_000.0]),
    late=st.sampled_from([0.0, 0.02, 0.2]),
    sigma=st.sampled_from([0.3, 1.0, 2.0]),
    bursts=st.sampled_from([0.0, 0.0, 0.3]),
)

__all__ = ["DAY", "HOUR", "MINUTE", "START_MS", "Stream", "arrival", "pack_location", "scripts", "streams"]
