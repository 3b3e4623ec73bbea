"""The file of reference rates; `python -m stores.reference_rates FILE` checks one.

YAML with the day it is of and US dollars for one unit of each currency:

    as_of: 2026-01-01
    usd:
      EUR: 1.08
      JPY: 0.0067

`TOLLGATE_REFERENCE_RATES` names it. Rates are a constant of the features, not quotes: history, states
and models that were made under other rates do not compare, so a new file goes with a new history and
a new model. Currencies that the file leaves out keep the rate of `fraud.contract.reference_rates`.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from fraud.contract import reference_rates
from fraud.contract.money import CURRENCIES, rates_digest, use_rates

#: A rate this many times off the table that comes with the program deserves a look.
_FAR: Final = 3


class RatesError(ValueError):
    """A file of reference rates that cannot be used; the text says what to mend."""


class Rates(NamedTuple):
    """Reference rates as a file gives them: of which day, and which currencies it names."""

    as_of: date
    usd: dict[str, str]

    @property
    def whole(self) -> dict[str, str]:
        """The rate of every currency."""
        return reference_rates.USD | self.usd

    def remarks(self) -> list[str]:
        """What somebody who made the file should look at again."""
        rest = sorted(set(CURRENCIES) - set(self.usd))
        found = [f"not in the file, the program's own rate stands: {', '.join(rest)}"] if rest else []
        for code, rate in sorted(self.usd.items()):
            ratio = Decimal(rate) / Decimal(reference_rates.USD[code])
            if not Decimal(1) / _FAR < ratio < _FAR:
                own = reference_rates.USD[code]
                found.append(
                    f"{code} is {rate}, {ratio:.3g} times the program's own {own}: is it dollars a unit?"
                )
        return found


def read_rates(path: Path) -> Rates:
    """The rates of a file; raise RatesError that says what is wrong with it."""
    try:
        # Text as it stands: NO is Norway's krone's country and no negation, 1.08 is exact.
        content: Any = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise RatesError(f"{path.name} cannot be read: {type(error).__name__}") from None
    except yaml.YAMLError as error:
        raise RatesError(f"{path.name} is not YAML: {error}") from None
    if (
        not isinstance(content, dict)
        or set(content) != {"as_of", "usd"}
        or not isinstance(content["usd"], dict)
    ):
        raise RatesError(f"{path.name} should hold as_of, a date, and usd, a rate for each currency")
    try:
        as_of = date.fromisoformat(content["as_of"])
    except (TypeError, ValueError):
        raise RatesError(f"{path.name}: as_of should be a date, such as 2026-01-01") from None
    rates = Rates(as_of, content["usd"])
    broken = [
        code for code, rate in rates.usd.items() if not isinstance(code, str) or not isinstance(rate, str)
    ]
    if broken:
        raise RatesError(f"{path.name}: {broken[0]}: should be a decimal, such as 1.08")
    return rates


def apply_rates(path: Path) -> None:
    """Convert by the rates of `path` from now on, in this process; raise RatesError."""
    rates = read_rates(path)
    try:
        use_rates(rates.whole)
    except ValueError as error:
        raise RatesError(f"{path.name}: {error}") from None


def main(arguments: list[str] | None = None) -> int:
    """Check a file of rates; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m stores.reference_rates", description="Check reference rates."
    )
    parser.add_argument("file", type=Path, help="a file of rates, as TOLLGATE_REFERENCE_RATES names one")
    path: Path = parser.parse_args(arguments).file
    try:
        apply_rates(path)
        rates = read_rates(path)
    except RatesError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{path.name}: rates of {rates.as_of}, {len(rates.usd)} of {len(CURRENCIES)} currencies, digest "
        f"{rates_digest()} (reference_rates in manifests)"
    )
    for remark in rates.remarks():
        print(f"  {remark}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
