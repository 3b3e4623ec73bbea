"""Money as integers: minor units per currency, and a reference currency for features.

A transaction's amount is kept exactly, in minor units of its own currency. Velocity and
profiles add amounts of many currencies, so they use *reference cents*: the amount converted
by a fixed table of rates. The table is a feature-engineering constant, not a market quote: it
never changes between training and serving, which is what makes features repeat.

Currencies are those of ISO 4217's list one (the `iso4217` package carries SIX's own file) that
have a minor unit, and those of list three that were withdrawn since 2010: histories hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

from iso4217 import raw_table

from fraud.contract import reference_rates


class Currency(NamedTuple):
    """ISO 4217's numeric code, and digits after the decimal point."""

    number: int
    digits: int


_WITHDRAWN: Final = {
    "ANG": Currency(532, 2), "BGN": Currency(975, 2), "BYR": Currency(974, 0), "CUC": Currency(931, 2),
    "EEK": Currency(233, 2), "HRK": Currency(191, 2), "LTL": Currency(440, 2), "LVL": Currency(428, 2),
    "MRO": Currency(478, 2), "SLL": Currency(694, 2), "STD": Currency(678, 2), "VEF": Currency(937, 2),
    "ZMK": Currency(894, 2), "ZWL": Currency(932, 2),
}  # fmt: skip
#: Every currency that a transaction may have, by its ISO 4217 code. Metals, baskets and codes for
#: tests have no minor unit, and no amounts.
CURRENCIES: Final[dict[str, Currency]] = dict(
    sorted(
        (
            _WITHDRAWN
            | {
                code: Currency(entry["CcyNbr"], int(entry["CcyMnrUnts"]))
                for code, entry in cast("dict[str, dict[str, Any]]", raw_table).items()
                if code and entry["CcyMnrUnts"].isdigit()
            }
        ).items()
    )
)
#: Digits after the decimal point, by ISO 4217 code.
MINOR_DIGITS: Final[dict[str, int]] = {code: currency.digits for code, currency in CURRENCIES.items()}

#: Amounts enter velocity sums at most this large (reference cents, 21.4 million units), so
#: that integer sums and sums of squares stay exact in 64 bits.
REFERENCE_CAP: Final = 2**31 - 1

#: Rounds nothing: more digits than any amount has are an error.
_EXACT: Final = Context(prec=28, Emax=999_999, Emin=-999_999, traps=[Inexact])
#: An amount that may come from a binary float counts as exact this close to a whole minor unit.
FLOAT_TOLERANCE: Final = Decimal("1e-6")
_FLOAT_PLACES: Final = 30
_WIDE: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_FACTOR: Final = {code: Decimal(10**digits) for code, digits in MINOR_DIGITS.items()}
_QUANTUM: Final = {code: Decimal(1).scaleb(-digits) for code, digits in MINOR_DIGITS.items()}
#: A rate is a positive decimal of at most this many places; nothing real is worth more than the bound.
_RATE_PLACES: Final = 12
_LARGEST_RATE: Final = 10_000

#: Twice the numerator of a currency's rate, its divisor (minor units in, cents out), and twice that.
_CONVERSION: Final[dict[str, tuple[int, int, int]]] = {}


def use_rates(rates: Mapping[str, str | Decimal]) -> None:
    """Convert by `rates` (US dollars for one major unit) from now on, in this process.

    To be called before anything is converted. Raises ValueError that names the currency, and
    changes nothing, unless every currency has a rate that is a positive decimal.
    """
    missing = sorted(set(CURRENCIES) - set(rates))
    if missing:
        raise ValueError(f"has no rate for {', '.join(missing)}")
    made = {}
    for code, rate in rates.items():
        if code not in CURRENCIES:
            raise ValueError(f"{code} is not a currency of ISO 4217 with a minor unit")
        try:
            value = Decimal(rate)
            scaled = int(value.scaleb(_RATE_PLACES, _EXACT))
        except (InvalidOperation, Inexact, ValueError, OverflowError):
            raise ValueError(f"{code}: should be a decimal, such as 1.08") from None
        if not 0 < value <= _LARGEST_RATE or Decimal(scaled).scaleb(-_RATE_PLACES) != value:
            raise ValueError(f"{code}: should be above 0, at most {_LARGEST_RATE}, in {_RATE_PLACES} places")
        if code == "USD" and value != 1:
            raise ValueError("USD: a dollar is worth 1")
        divisor = 10 ** (_RATE_PLACES - 2 + CURRENCIES[code].digits)
        made[code] = 2 * scaled, divisor, 2 * divisor
    _CONVERSION.clear()
    _CONVERSION.update(made)


def rates_digest() -> str:
    """A digest of the rates in use: what was computed under another one does not compare."""
    text = ";".join(f"{code}:{rate}/{divisor}" for code, (rate, divisor, _) in sorted(_CONVERSION.items()))
    return blake2b(text.encode(), digest_size=8).hexdigest()


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


def nearly_minor_units(amount: Decimal, currency: str) -> int | None:
    """`amount` in minor units where it lies within a millionth of a whole one, else None.

    Sums of binary floats are printed like that: 304.09999999999997 is 304.10. Beyond 30 decimals
    nothing was printed from a float.
    """
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_FLOAT_PLACES:
        return None
    scaled = amount.scaleb(MINOR_DIGITS[currency], _WIDE)
    nearest = scaled.to_integral_value(context=_WIDE)
    return int(nearest) if abs(scaled - nearest) <= FLOAT_TOLERANCE else None


def in_minor_digits(amount: Decimal, currency: str) -> bool:
    """Whether `amount` has exactly the decimals of its currency, as canonical amounts have."""
    return amount.same_quantum(_QUANTUM[currency])


def whole_minor_units(amount: Decimal, currency: str) -> int:
    """As `minor_units`, for an amount that is `in_minor_digits`."""
    return int(amount * _FACTOR[currency])


def decimal_amount(minor: int, currency: str) -> Decimal:
    """The exact decimal amount of `minor` minor units of `currency`."""
    return Decimal(minor).scaleb(-MINOR_DIGITS[currency])


def reference_cents(minor: int, currency: str) -> int:
    """`minor` minor units of `currency` in reference cents, rounded half up and capped."""
    rate, divisor, twice = _CONVERSION[currency]
    cents = (minor * rate + divisor) // twice
    return cents if cents < REFERENCE_CAP else REFERENCE_CAP


use_rates(reference_rates.USD)
