"""The entities a transaction touches, what their states remember, and the windows declared over these.

What a state can hold is the platform's own (`ENTITIES`); what is read from it, and over which windows, is
declared (`feature_repo.standard_velocity`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fraud.declared.figures import Figure
from fraud.features.plan import STANDARD


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

#: States remember the events of so many milliseconds behind the newest (and of two hours more, for late
#: ones), and the last uses of counterparties; those of habits for 30 days. No declared window is longer.
REMEMBERED_MS: Final = 86_400_000
HABITS_REMEMBERED_MS: Final = 30 * 86_400_000
_OF_EVENTS: Final = ("count", "sum", "mean", "std", "zscore", "count_distinct")
_FIGURES: Final = {view.entity: view.figures for view in STANDARD.velocities}


def velocity_figures(entity: Entity) -> tuple[Figure, ...]:
    """What is declared to be read from the entity's state, in order."""
    return _FIGURES.get(entity.name, ())


def table_of(entity: Entity, column: str) -> int:
    """The place of the last-seen table that remembers `column`; -1 if the entity's state remembers none."""
    fields = [TRACKED_FIELDS[name] for name in entity.tracked]
    return fields.index(column) if column in fields else -1


def window_name(milliseconds: int) -> str:
    """A length as names have it: `5m`, `1h`, `24h`."""
    hours, rest = divmod(milliseconds, 3_600_000)
    return f"{milliseconds // 60_000}m" if rest else f"{hours}h"


#: Every window over events that is declared, shortest first.
WINDOWS: Final = tuple(
    [
        Window(window_name(length), length)
        for length in sorted(
            {
                each.window_ms
                for entity in ENTITIES
                for each in velocity_figures(entity)
                if each.function in _OF_EVENTS
            }
            or {REMEMBERED_MS}
        )
    ]
)
#: By entity and last-seen table, how far back its novelty looks; 0 where none is declared.
NOVELTY_MS: Final[dict[str, tuple[int, ...]]] = {
    entity.name: tuple(
        [
            max(
                (
                    each.window_ms
                    for each in velocity_figures(entity)
                    if each.function == "new" and table_of(entity, each.column) == table
                ),
                default=0,
            )
            for table in range(len(entity.tracked))
        ]
    )
    for entity in ENTITIES
}

#: A batch profile is recomputed at every cut; 1, 7 and 30 days back from it.
PROFILE_DAYS: Final = (1, 7, 30)
CUT_INTERVAL: Final = timedelta(hours=6)

#: How long a value may be used after it was computed; past it, it is stale and served as null.
PROFILE_TTL: Final = timedelta(days=2)
VELOCITY_TTL: Final = timedelta(days=30)

#: The one feature service that training, serving, replay and parity use.
FEATURE_SERVICE: Final = "fraud_scoring_v1"
