"""Where people live and what they buy: the fixed tables of the synthetic world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class City:
    """A city: degrees north and east, and its share of the population (relative)."""

    name: str
    country: str
    latitude: float
    longitude: float
    weight: float


@dataclass(frozen=True, slots=True)
class Category:
    """A merchant category: `median` purchase in US dollars, `sigma` of its logarithm.

    `share` is its part of all merchants, `online` the part of those that sell online, and
    `risk` how much thieves prefer it (1 is indifferent).
    """

    name: str
    median: float
    sigma: float
    share: float
    online: float
    risk: float


CURRENCY_OF: Final = {
    "DE": "EUR", "FR": "EUR", "NL": "EUR", "ES": "EUR", "IT": "EUR", "AT": "EUR",
    "GB": "GBP", "PL": "PLN", "SE": "SEK", "CH": "CHF", "CZ": "CZK", "US": "USD",
    "AE": "AED", "JP": "JPY", "TR": "TRY", "BR": "BRL",
}  # fmt: skip
COUNTRIES: Final = tuple(CURRENCY_OF)

CITIES: Final = (
    City("Berlin", "DE", 52.52, 13.40, 10), City("Hamburg", "DE", 53.55, 9.99, 7),
    City("Munich", "DE", 48.14, 11.58, 7), City("Cologne", "DE", 50.94, 6.96, 6),
    City("Frankfurt", "DE", 50.11, 8.68, 5), City("Leipzig", "DE", 51.34, 12.37, 3),
    City("Paris", "FR", 48.86, 2.35, 8), City("Lyon", "FR", 45.76, 4.84, 3),
    City("Marseille", "FR", 43.30, 5.37, 3), City("Amsterdam", "NL", 52.37, 4.90, 4),
    City("Rotterdam", "NL", 51.92, 4.48, 2), City("Madrid", "ES", 40.42, -3.70, 4),
    City("Barcelona", "ES", 41.39, 2.17, 4), City("Rome", "IT", 41.90, 12.50, 4),
    City("Milan", "IT", 45.46, 9.19, 4), City("Vienna", "AT", 48.21, 16.37, 4),
    City("London", "GB", 51.51, -0.13, 6), City("Manchester", "GB", 53.48, -2.24, 2),
    City("Warsaw", "PL", 52.23, 21.01, 4), City("Krakow", "PL", 50.06, 19.94, 2),
    City("Stockholm", "SE", 59.33, 18.07, 3), City("Zurich", "CH", 47.38, 8.54, 3),
    City("Prague", "CZ", 50.08, 14.44, 3), City("New York", "US", 40.71, -74.01, 1),
    City("Los Angeles", "US", 34.05, -118.24, .5), City("Miami", "US", 25.76, -80.19, .5),
    City("Dubai", "AE", 25.20, 55.27, .6), City("Tokyo", "JP", 35.68, 139.69, .5),
    City("Istanbul", "TR", 41.01, 28.98, 1), City("Sao Paulo", "BR", -23.55, -46.63, .5),
)  # fmt: skip

#: The place where cash is drawn; its merchants are banks and their terminals cash machines.
CASH: Final = 0
CATEGORIES: Final = (
    Category("cash", 80, .45, .05, 0, 2),
    Category("groceries", 24, .6, .18, .10, .4),
    Category("restaurants", 22, .55, .16, .05, .4),
    Category("fuel", 48, .35, .06, 0, .8),
    Category("transport", 12, .6, .07, .35, .5),
    Category("clothing", 45, .55, .10, .45, 1.5),
    Category("electronics", 130, .8, .07, .55, 4),
    Category("pharmacy", 17, .5, .06, .15, .3),
    Category("travel", 180, .75, .04, .75, 3),
    Category("digital", 9, .7, .06, 1, 2.5),
    Category("gift_cards", 55, .6, .02, .8, 6),
    Category("home", 60, .8, .07, .35, 1),
    Category("leisure", 28, .6, .04, .4, .8),
    Category("donations", 20, .7, .02, .9, 1.5),
)  # fmt: skip
