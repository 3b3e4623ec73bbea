"""Reasons for a decision as a person reads them: a phrase and a code for each feature, declared with it.

A phrase tells one known value: "first purchase in this country", "12 purchases in 5 minutes, usually 1 a
day". Nothing is told of what is unknown, and nothing that is no reason: that a device was seen before.
Codes are a small catalogue (`REASON_CODES`) for letters to customers and for statistics: adverse-action
codes in the sense of the Equal Credit Opportunity Act's Regulation B, whose sample forms name principal
reasons the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fraud.contract.fields import CHANNELS

#: What each code means, as a letter to a customer would put it.
REASON_CODES: Final[dict[str, str]] = {
    "A1": "The amount is unusual",
    "C1": "The kind of payment is unusual",
    "D1": "The device or internet address is new or shared",
    "F1": "Fraud was reported on this account or card",
    "H1": "There is little history to go by",
    "L1": "The place is unusual",
    "M1": "Fraud was reported at this merchant or terminal",
    "N1": "It is the first purchase of its kind",
    "R1": "A rule of the bank applies",
    "T1": "The time of day is unusual",
    "V1": "There were unusually many purchases in a short time",
    "X1": "Other information about the payment",
}

#: The code of a rule's reason, and of features that declare no phrase.
RULE_CODE: Final = "R1"
OTHER_CODE: Final = "X1"

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Phrase:
    """How one feature's known value reads. `text` has `{}` where the value goes, written by `write`.

    `one` replaces `text` where the value is 1. `usual` names the feature that tells what is usual, and
    `usually` writes it. `told` says of which values there is anything to tell; the default: of all.
    """

    text: str
    code: str
    write: Callable[[float], str] = lambda value: f"{value:,.0f}"
    one: str | None = None
    usual: str | None = None
    usually: Callable[[float], str] = lambda value: f"usually {money(value)}"
    told: Callable[[float], bool] = lambda value: True

    def of(self, value: float, known: Values) -> str | None:
        """The phrase for `value`; None where it is unknown or no reason. `known` are the row's features."""
        if math.isnan(value) or not self.told(value):
            return None
        text = self.one if self.one is not None and value == 1 else self.text
        said = text.format(self.write(value)) if "{}" in text else text
        usual = known.get(self.usual, math.nan) if self.usual is not None else math.nan
        if not math.isnan(usual) and usual > 0:
            said += ", " + self.usually(usual)
        return said


def money(cents: float) -> str:
    """Reference cents in the reference currency."""
    return f"{cents / 100:,.2f}"


def count(value: float) -> str:
    """A number of things: whole where it is, else with as many digits as it needs."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def usual_rate(month: float) -> str:
    """How often something usually happens, from how often it did in 30 days."""
    if month >= 30:
        return f"usually {month / 30:,.0f} a day"
    return f"usually {month * 7 / 30:.0f} a week" if month >= 8 else f"usually {month:.0f} a month"


def share(value: float) -> str:
    """A share in percent, in as few digits as tell it from nothing."""
    return f"{value:.1%}" if value >= 0.01 else f"{value * 100:.2g}%"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that they are twice of."""
    for name, length in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {name}"
    return "1 second" if round(seconds) == 1 else f"{seconds:,.0f} seconds"


def times(value: float) -> str:
    """How many times as much."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")


def clock(hours: float) -> str:
    """Hours of the day, with fraction."""
    minutes = int(hours * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def weekday(day: float) -> str:
    """The name of a day of the week, Monday 0."""
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return names[int(day) % 7]


def channel(code: float) -> str:
    """How it was paid."""
    names = {
        "pos": "payment at a terminal", "ecom": "online payment", "atm": "cash withdrawal",
        "moto": "payment by mail or telephone", "transfer": "transfer",
    }  # fmt: skip
    at = int(code)
    name = CHANNELS[at] if 0 <= at < len(CHANNELS) else ""
    return names.get(name, f"payment by {name}" if name else "payment")


def compared(deviations: float) -> str:
    """How an amount stands to others, by standard deviations."""
    if abs(deviations) < 1:
        return "about"
    far = "far " if abs(deviations) >= 3 else ""
    return f"{far}above" if deviations > 0 else f"{far}below"


def positive(value: float) -> bool:
    """Whether there is anything: the sign that `told` asks for most often."""
    return value > 0


def is_one(value: float) -> bool:
    """Whether a flag is up."""
    return value == 1


#: Where an entity's purchases are made, as words behind "purchases".
WHERE: Final = {
    "customer": "", "card": " with this card", "merchant": " at this merchant",
    "terminal": " at this terminal", "device": " from this device", "ip": " from this internet address",
}  # fmt: skip
#: What an entity is called.
CALLED: Final = {
    "customer": "customer", "card": "card", "merchant": "merchant", "terminal": "terminal",
    "device": "device", "ip": "internet address", "country": "country",
}  # fmt: skip
#: How a purchase involves what may be new to it.
_INVOLVES: Final = {
    "merchant": "at this merchant", "device": "from this device", "country": "in this country",
    "card": "with this card", "customer": "of this customer",
}  # fmt: skip


def fraud_code(entity: str) -> str:
    """The code of fraud that was reported on an entity."""
    return {"customer": "F1", "card": "F1", "merchant": "M1", "terminal": "M1"}.get(entity, "D1")


def first_of(entity: str, other: str, within: str = "") -> Phrase:
    """The first purchase that involves both within the memory of the feature."""
    code = "L1" if other == "country" else "D1" if "device" in (entity, other) else "N1"
    where = "" if entity == "customer" else f" {WHERE[entity].strip()}"
    return Phrase(f"first purchase {_INVOLVES[other]}{where}{within}", code, told=is_one)


def other_words(meaning: str, value: float) -> str | None:
    """What is said of a feature that declares no phrase: its meaning and its value."""
    if math.isnan(value):
        return None
    shown = count(value) if abs(value) >= 0.1 or value == 0 else f"{value:.4f}"
    return f"{meaning}: {shown}"
