"""The fields of a transaction, what each should be, and how one that is not is refused."""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

import msgspec

from fraud.contract.cards import redact
from fraud.contract.refusal import ContractError

Channel = Literal["pos", "ecom", "atm", "moto", "transfer"]
CHANNELS: Final[tuple[str, ...]] = get_args(Channel)

#: What each field should be, for errors.
EXPECTED: Final[dict[str, str]] = {
    "transaction_id": "a string of 1 to 64 characters",
    "event_time": "an RFC 3339 time with an offset, such as 2026-03-01T12:00:00.250Z",
    "customer_id": "a string of 1 to 64 characters",
    "card_id": "a card token of 1 to 64 characters, never a card number",
    "merchant_id": "a string of 1 to 64 characters",
    "amount": 'a decimal of at least 0, as a string or a number, such as "12.34"',
    "currency": "an ISO 4217 code of a currency with a minor unit, such as EUR",
    "channel": "one of " + ", ".join(CHANNELS),
    "terminal_id": "a string of 1 to 64 characters, or absent",
    "device_id": "a string of 1 to 64 characters, or absent",
    "ip": "one IPv4 or IPv6 address, or absent",
    "merchant_category": "a string of 1 to 64 characters, a whole number, or absent",
    "country": "an ISO 3166 alpha-2 code in capitals, or absent",
    "latitude": "degrees between -90 and 90, or absent",
    "longitude": "degrees between -180 and 180, or absent",
}
FIELDS: Final = tuple(EXPECTED)

_PATH = re.compile(r"`\$\.?([^`]*)`\s*$")
_FIELD_IN_MESSAGE = re.compile(r"field `(.*?)`", re.DOTALL)


def contract_error(error: msgspec.ValidationError) -> ContractError:
    """The `ContractError` for what msgspec refused, free of any input but the field's name."""
    message = str(error)
    named = _FIELD_IN_MESSAGE.search(message)
    if message.startswith("Object missing required field") and named:
        field = named.group(1)
        return ContractError(field, f"is missing; it should be {EXPECTED.get(field, 'present')}")
    if message.startswith("Object contains unknown field") and named:
        return ContractError(redact(named.group(1))[:64], "is not a field of the contract")
    path = _PATH.search(message)
    field = re.split(r"[.\[]", path.group(1))[0] if path else ""
    if field == "attributes":
        return ContractError(field, "should be an object of strings, numbers and booleans")
    if field in EXPECTED:
        return ContractError(field, f"should be {EXPECTED[field]}")
    return ContractError("(body)", "should be a JSON object that holds one transaction")
