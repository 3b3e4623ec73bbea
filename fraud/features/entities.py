"""The entities a transaction touches, what each one remembers, and the windows it is seen in.

Everything that lists entities, windows or counterparties reads these tables: Feast
definitions, Spark jobs, the stream, the feature functions and the documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window ``[t - length, t)`` over event time."""

    name: str
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity of the feature store.

    `name` is also the prefix of its features, `key` the contract field and Feast join key.
    `counterparties` are the entities whose distinct values are counted over the windows, and
    `habits` the attributes whose last use is remembered for novelty ("new device").
    """

    name: str
    key: str
    counterparties: tuple[str, ...]
    habits: tuple[str, ...] = ()
    located: bool = False

    @property
    def tracked(self) -> tuple[str, ...]:
        """Names of the last-seen tables of this entity's state, in packed order."""
        return self.counterparties + self.habits

    @property
    def velocity_view(self) -> str:
        return f"{self.name}_velocity"

    @property
    def state_feature(self) -> str:
        return f"{self.name}_state"

    @property
    def profile_view(self) -> str:
        return f"{self.name}_profile"


WINDOWS: Final = (
    Window("1m", 60_000),
    Window("5m", 300_000),
    Window("30m", 1_800_000),
    Window("1h", 3_600_000),
    Window("24h", 86_400_000),
)

ENTITIES: Final = (
    Entity("customer", "customer_id", ("merchant",), ("device", "country"), located=True),
    Entity("card", "card_id", ("merchant",), ("device", "country"), located=True),
    Entity("merchant", "merchant_id", ("card",)),
    Entity("terminal", "terminal_id", ("card",)),
    Entity("device", "device_id", ("card", "customer")),
    Entity("ip", "ip", ("card", "customer")),
)
ENTITY_BY_NAME: Final = {entity.name: entity for entity in ENTITIES}

#: What one person has: its payments come one after the other, and are few. A transaction counts no earlier
#: than what these did before, and serving lays the payments of the last seconds over their states. Shops,
#: terminals and addresses serve many at once, whose clocks and ways differ.
PERSONAL: Final = ("customer", "card")

#: Attributes that a state can remember, and the contract field each comes from.
TRACKED_FIELDS: Final = {
    "customer": "customer_id",
    "card": "card_id",
    "merchant": "merchant_id",
    "device": "device_id",
    "country": "country",
}

#: A batch profile is recomputed at every cut; 1, 7 and 30 days back from it.
PROFILE_DAYS: Final = (1, 7, 30)
CUT_INTERVAL: Final = timedelta(hours=6)

#: How long a value may be used after it was computed; past it, it is stale and served as null.
PROFILE_TTL: Final = timedelta(days=2)
VELOCITY_TTL: Final = timedelta(days=30)

#: The one feature service that training, serving, replay and parity use.
FEATURE_SERVICE: Final = "fraud_scoring_v1"
