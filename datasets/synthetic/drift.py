"""Changes of the world that can be switched on at a date, for monitoring to find.

Each keeps to its own random numbers, so that with the same seed the world before the date does
not depend on which amounts, attacks or fields change after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, Literal, get_args

import numpy as np

from datasets.synthetic.genuine import OnlineShift
from datasets.synthetic.rows import GENUINE, NONE, STEALTHY, Rows

Kind = Literal["amounts_up", "channel_mix", "new_fraud_type", "halved_attacks", "field_missing"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)

AMOUNT_FACTOR: Final = 1.15
SHOP_SHARE_MOVED: Final = 0.30
NEW_FRAUD_SHARE: Final = 0.35
ATTACK_FACTOR: Final = 0.5
DEVICE_LOSS: Final = 0.60

#: What each kind does, as written to drift.json.
MEANING: Final[dict[str, str]] = {
    "amounts_up": f"every amount is {AMOUNT_FACTOR} times what it would have been",
    "channel_mix": f"{SHOP_SHARE_MOVED:.0%} of purchases in shops are made online instead",
    "new_fraud_type": f"mule transfers appear, {NEW_FRAUD_SHARE:.0%} as many as all other frauds",
    "halved_attacks": f"amounts of frauds that leave a trace are {ATTACK_FACTOR} times what they were",
    "field_missing": f"device_id goes missing on {DEVICE_LOSS:.0%} of the transactions that carry one",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """One change, from midnight UTC of `since` on."""

    kind: str
    since: date

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"drift {self.kind!r} should be one of {', '.join(KINDS)}")

    @classmethod
    def parse(cls, text: str) -> Drift:
        """Read ``kind@YYYY-MM-DD``; ValueError says what is wrong."""
        kind, at, since = text.partition("@")
        if not at:
            raise ValueError(f"drift {text!r} should be kind@YYYY-MM-DD")
        return cls(kind, date.fromisoformat(since))

    @property
    def from_ms(self) -> int:
        """Milliseconds since 1970 UTC at which the change begins."""
        return int(datetime(self.since.year, self.since.month, self.since.day, tzinfo=UTC).timestamp()) * 1000


def online_shift(drifts: tuple[Drift, ...]) -> OnlineShift | None:
    """The change of the channel mix, if there is one."""
    found = _find(drifts, "channel_mix")
    return OnlineShift(found.from_ms, SHOP_SHARE_MOVED) if found else None


def new_fraud_from(drifts: tuple[Drift, ...]) -> int | None:
    """When the new type of fraud begins, milliseconds since 1970 UTC."""
    found = _find(drifts, "new_fraud_type")
    return found.from_ms if found else None


def apply(rows: Rows, drifts: tuple[Drift, ...], rng: np.random.Generator) -> None:
    """Change amounts and devices of `rows` in place, as `drifts` say."""
    loses_device = rng.random(len(rows)) < DEVICE_LOSS
    for drift in drifts:
        after = rows.event_ms >= drift.from_ms
        if drift.kind == "amounts_up":
            rows.cents[after] *= AMOUNT_FACTOR
        elif drift.kind == "halved_attacks":
            attack = (rows.kind != GENUINE) & (rows.kind != STEALTHY)
            rows.cents[after & attack] *= ATTACK_FACTOR
        elif drift.kind == "field_missing":
            rows.device[after & loses_device] = NONE


def log(drifts: tuple[Drift, ...]) -> list[dict[str, str]]:
    """The ground truth of `drifts`, for drift.json."""
    ordered = sorted(drifts, key=lambda drift: (drift.since, drift.kind))
    return [
        {"kind": drift.kind, "since": f"{drift.since.isoformat()}T00:00:00Z", "meaning": MEANING[drift.kind]}
        for drift in ordered
    ]


def _find(drifts: tuple[Drift, ...], kind: str) -> Drift | None:
    return next((drift for drift in drifts if drift.kind == kind), None)
