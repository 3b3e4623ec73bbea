"""Which numbers payment cards have: the schemes' issuer ranges, and how cards are printed.

A card number begins with an issuer identification number (ISO/IEC 7812-1): the scheme's prefix
and, with it, how many digits follow. The table is from what the schemes and their processors
publish, gathered in Wikipedia's "Payment card number" (read in November 2026): Visa's, Mastercard's
and Discover's public BIN tables are its sources, and the public test numbers of the processors are
the known answers of the tests. A range that several schemes share stands under each of them.

A range too many refuses somebody's ids, a range too few lets a card number in. So retired schemes
stay (their numbers stand in old files), and Maestro has the whole of what Mastercard reserves for
it, except at 12 digits: there it has what retrieval reference numbers (ISO 8583, field 37: the
year's last digit, the day of the year, the hour and six digits) do not begin with, and the prefixes
of cards that are known to have 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

#: Fewest and most digits of a card number.
FEWEST: Final = 12
MOST: Final = 19
#: Digits of a number that tell its issuer here; a longer prefix counts by its first six.
LEAD: Final = 6


@dataclass(frozen=True)
class Issuer:
    """One scheme: its prefixes ("2221-2720 51-55", "4"), and the lengths that its numbers may have."""

    name: str
    prefixes: str
    lengths: tuple[int, ...]

    @cached_property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First and last lead (six digits, as integers) of each prefix."""
        found = []
        for prefix in self.prefixes.split():
            first, _, last = prefix.partition("-")
            found.append((int(first.ljust(LEAD, "0")[:LEAD]), int((last or first).ljust(LEAD, "9")[:LEAD])))
        return tuple(found)


_16_TO_19: Final = (16, 17, 18, 19)

ISSUERS: Final[tuple[Issuer, ...]] = (
    Issuer("Visa", "4", (13, 16, 17, 18, 19)),
    Issuer("Mastercard", "2221-2720 51-55", (16,)),
    Issuer("American Express", "34 37", (15,)),
    Issuer("Diners Club International", "30 36 38-39", (14, 15, 16, 17, 18, 19)),
    Issuer("Discover", "6011 622126-622925 644-649 65", _16_TO_19),
    Issuer("JCB", "3528-3589", _16_TO_19),
    Issuer("JCB, 15 digits", "1800 2131", (15,)),
    Issuer("UnionPay", "62 81", _16_TO_19),
    Issuer("China T-Union", "31", (19,)),
    Issuer("Maestro", "50 56-58 6", (13, 14, 15, 16, 17, 18, 19)),
    Issuer("Maestro, 12 digits", "5018 5020 5038 56-58 6304 637-639 64-69", (12,)),
    Issuer("Switch and Solo", "4903 4905 4911 4936 6333-6334", (16, 18, 19)),
    Issuer("Bankcard", "5610 560221-560225", (16,)),
    Issuer("Dankort", "5019 4571", (16,)),
    Issuer("Mir", "2200-2204", _16_TO_19),
    Issuer("BORICA and PayPak", "2205", (16,)),
    Issuer("RuPay", "60 65 81-82 508 353 356", (16,)),
    Issuer("Troy", "65 9792", (16,)),
    Issuer("Verve", "506099-506198 507865-507964 650002-650027", (16, 18, 19)),
    Issuer("Elo", "4011 4312 4389 4514 4573 4576 5041 5066-5067 509 6277 6362-6363 650-651 655", (16,)),
    Issuer("Hipercard", "384100-384160 606282 637095-637612", (13, 16, 19)),
    Issuer("Carnet", "286900 502275 506199-506499 627535 636318 636379 639388 639484 639559", (16,)),
    Issuer("Cabal and Naranja", "589562 589657 6042-6044", (16,)),
    Issuer("mada", "588845-588851 588982-588983 604906 605141 636120 968201-968211", (16,)),
    Issuer("Meeza", "507803-507810 9818", (16,)),
    Issuer(
        "Shetab",
        "207177 502229 502806 502908 502938 504172 505416 505785 505801 585947 585983 589210 589463 "
        "603770 603799 606256 606373 610433 621986 622106 627353 627381 627412 627488 627648 627760 "
        "627961 628023 636214 636795 636949 639194 639217 639346 639347 639370 639599 639607",
        (16,),
    ),
    Issuer("GPN", "50 56 58 60-63", (16, 18, 19)),
    Issuer("GPN, BNI", "1946", (16,)),
    Issuer("NAPAS", "9704", (16, 19)),
    Issuer("UzCard", "5614 8600", (16,)),
    Issuer("Humo", "9860", (16,)),
    Issuer("Belkart", "9112", (16,)),
    Issuer("ArCa", "9051", (16,)),
    Issuer("ElCart", "9417", (16,)),
    Issuer("Prostir", "9804", (16,)),
    Issuer("UkrCard", "60400100-60420099", _16_TO_19),
    Issuer("DinaCard", "9891", (16,)),
    Issuer("LankaPay", "357111", (16,)),
    Issuer("InterPayment", "636", _16_TO_19),
    Issuer("InstaPayment", "637-639", (16,)),
    Issuer("UATP", "1", (15,)),
)

#: Digits of each group that cards are printed in: schemes' card designs, processors' payment forms.
GROUPINGS: Final[tuple[tuple[int, ...], ...]] = (
    (4, 4, 4),
    (4, 3, 3, 3),
    (4, 4, 5),
    (4, 6, 4),
    (4, 6, 5),
    (4, 5, 6),
    (4, 4, 4, 3),
    (4, 4, 4, 4),
    (4, 12),
    (4, 4, 4, 4, 1),
    (4, 4, 4, 4, 2),
    (4, 4, 4, 4, 3),
    (6, 13),
)


def lengths_by_lead() -> bytes:
    """For each lead (six digits, as an index) the lengths that a card number may have: bit 0 stands
    for `FEWEST` digits, bit 7 for `MOST`."""
    table = np.zeros(10**LEAD, dtype=np.uint8)
    for issuer in ISSUERS:
        bits = sum(1 << (length - FEWEST) for length in issuer.lengths)
        for first, last in issuer.ranges:
            table[first : last + 1] |= bits
    return table.tobytes()
