"""Money as integers: minor units per currency, and a reference currency for features.

A transaction's amount is kept exactly, in minor units of its own currency. Velocity and
profiles add amounts of many currencies, so they use *reference cents*: the amount converted
by a fixed table of integer rates. The table is a feature-engineering constant, not a market
quote: it never changes between training and serving, which is what makes features repeat.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact
from typing import Final

#: Digits after the decimal point, by ISO 4217 code.
MINOR_DIGITS: Final[dict[str, int]] = {
    "AED": 2, "AUD": 2, "BHD": 3, "BRL": 2, "CAD": 2, "CHF": 2, "CLP": 0, "CNY": 2, "CZK": 2,
    "DKK": 2, "EUR": 2, "GBP": 2, "HKD": 2, "HUF": 2, "IDR": 2, "ILS": 2, "INR": 2, "ISK": 0,
    "JPY": 0, "KRW": 0, "KWD": 3, "MXN": 2, "MYR": 2, "NOK": 2, "NZD": 2, "OMR": 3, "PHP": 2,
    "PLN": 2, "RON": 2, "SAR": 2, "SEK": 2, "SGD": 2, "THB": 2, "TND": 3, "TRY": 2, "TWD": 2,
    "USD": 2, "VND": 0, "ZAR": 2,
}  # fmt: skip

#: Reference cents (USD) for one *major* unit of a currency, times 10,000.
_REFERENCE_RATE: Final[dict[str, int]] = {
    "AED": 272300, "AUD": 660000, "BHD": 26525000, "BRL": 190000, "CAD": 730000, "CHF": 1120000,
    "CLP": 1060, "CNY": 140000, "CZK": 43000, "DKK": 145000, "EUR": 1080000, "GBP": 1270000,
    "HKD": 128000, "HUF": 2750, "IDR": 63, "ILS": 270000, "INR": 12000, "ISK": 7250,
    "JPY": 6700, "KRW": 745, "KWD": 32500000, "MXN": 55000, "MYR": 215000, "NOK": 94000,
    "NZD": 610000, "OMR": 25974000, "PHP": 17500, "PLN": 250000, "RON": 217000, "SAR": 266600,
    "SEK": 95000, "SGD": 745000, "THB": 28000, "TND": 3200000, "TRY": 31000, "TWD": 31000,
    "USD": 1000000, "VND": 40, "ZAR": 54000,
}  # fmt: skip

#: Amounts enter velocity sums at most this large (reference cents, 21.4 million units), so
#: that integer sums and sums of squares stay exact in 64 bits.
REFERENCE_CAP: Final = 2**31 - 1


#: Rounds nothing: more digits than any amount has are an error.
_EXACT: Final = Context(prec=28, Emax=999_999, Emin=-999_999, traps=[Inexact])

#: Twice the rate, the divisor that turns rate times minor units into cents, and twice that.
_CONVERSION: Final = {
    currency: (2 * rate, 10_000 * 10 ** MINOR_DIGITS[currency], 20_000 * 10 ** MINOR_DIGITS[currency])
    for currency, rate in _REFERENCE_RATE.items()
}


def minor_units(amount: Decimal, currency: str) -> int:
    """`amount` in minor units of `currency`; ValueError if it has more decimals than those.

    The amount is finite and no larger than the contract accepts.
    """
    digits = MINOR_DIGITS[currency]
    try:
        scaled = amount.scaleb(digits, _EXACT)
        whole = int(scaled)
        exact = scaled == whole
    except Inexact:
        exact = False
    if not exact:
        raise ValueError(f"has more than {digits} decimals, the minor unit of {currency}")
    return whole


def decimal_amount(minor: int, currency: str) -> Decimal:
    """The exact decimal amount of `minor` minor units of `currency`."""
    return Decimal(minor).scaleb(-MINOR_DIGITS[currency])


def reference_cents(minor: int, currency: str) -> int:
    """`minor` minor units of `currency` in reference cents, rounded half up and capped."""
    rate, divisor, twice = _CONVERSION[currency]
    cents = (minor * rate + divisor) // twice
    return cents if cents < REFERENCE_CAP else REFERENCE_CAP
