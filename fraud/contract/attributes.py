"""A team's own fields of a transaction: how many, how long, and what they may hold."""

from __future__ import annotations

import re
from math import isfinite
from typing import Final

from fraud.contract.cards import looks_like_card_number
from fraud.contract.refusal import ContractError

#: A field that a team declares (`fraud.declared.declaration.Attribute`), by its name.
Attributes = dict[str, str | bool | float | None]
#: Most attributes of one transaction, and longest text of one.
MOST_ATTRIBUTES: Final = 32
LONGEST_ATTRIBUTE: Final = 256

#: Whole numbers are exact up to here, and card numbers have fewer digits than the second.
_EXACT: Final = 1 << 53
_LONGEST_NUMBER: Final = 1e19
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


def check_attributes(attributes: Attributes, suspicious: bool) -> None:
    """Raise `ContractError` for what no attribute can be; card numbers are looked for if `suspicious`."""
    if len(attributes) > MOST_ATTRIBUTES:
        raise ContractError("attributes", f"should have at most {MOST_ATTRIBUTES} fields")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise ContractError("attributes", "should have names of small letters, digits and _, at most 63")
        if isinstance(value, str):
            if len(value) > LONGEST_ATTRIBUTE:
                raise ContractError(f"attributes.{name}", f"is longer than {LONGEST_ATTRIBUTE} characters")
            if suspicious and looks_like_card_number(value):
                raise ContractError(f"attributes.{name}", "looks like a card number; send a token instead")
        elif isinstance(value, float):
            if not isfinite(value):
                raise ContractError(f"attributes.{name}", "should be a finite number")
            if abs(value) >= 1e11:
                _check_large(name, value)


def _check_large(name: str, value: float) -> None:
    """Whole numbers of that many digits are searched whatever their bytes were, as 4.2e15 hides its digits.
    Those that a number does not hold exactly could be a card number a little off.
    """
    if _EXACT < abs(value) < _LONGEST_NUMBER:
        raise ContractError(f"attributes.{name}", "is larger than a number is exact; send it as text")
    if looks_like_card_number(f"{abs(value):.0f}"):
        raise ContractError(f"attributes.{name}", "looks like a card number; send a token instead")
