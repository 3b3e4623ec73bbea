"""The platform's own features, derived from Feast's objects: what every table and loop is made from.

python -m feature_repo.derive            write what is shipped (fraud/features/standard.json)
python -m feature_repo.derive --check    say whether it is what the definitions declare
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import fraud.features
from feature_repo import standard
from feature_repo.batch import batch_of
from feature_repo.standard_profiles import PROFILES
from feature_repo.standard_request import AGAINST, ALONE
from feature_repo.standard_velocity import VELOCITIES
from feature_repo.words import Word, figures_of
from fraud.declared.figures import Figure, Standard, VelocityView, encode_standard
from fraud.features.plan import SHIPPED, shipped


def declared_standard() -> Standard:
    """What the definitions declare."""
    return Standard(
        tuple([batch_of(view) for view in standard.profiles]),
        tuple([VelocityView(name, _figures(words)) for name, words in VELOCITIES.items()]),
        _figures([*ALONE, *AGAINST]),
        tuple(
            [
                each.name
                for view in standard.fraud_scoring_v1.feature_view_projections
                for each in view.features
            ]
        ),
    )


def changed_standard() -> Standard | None:
    """What the definitions declare, None if that is what is shipped."""
    found = declared_standard()
    return None if encode_standard(found) == encode_standard(shipped()) else found


def place_of(name: str) -> str:
    """File and line of a feature of the platform's own."""
    words = [
        *ALONE,
        *AGAINST,
        *[word for of in (PROFILES, VELOCITIES) for each in of.values() for word in each],
    ]
    return next((word.where for word in words if word.name == name), "feature_repo/standard.py")


def _figures(words: list[Word]) -> tuple[Figure, ...]:
    return figures_of([word.aggregation for word in words], {word.name: word.meaning for word in words})


def main(arguments: list[str] | None = None) -> int:
    """Write the file, or hold it against the definitions; 1 if they differ."""
    parser = argparse.ArgumentParser(prog="python -m feature_repo.derive", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    chosen = parser.parse_args(arguments)
    path = Path(fraud.features.__path__[0]) / SHIPPED
    wanted = encode_standard(declared_standard())
    if chosen.check:
        same = path.exists() and path.read_bytes() == wanted
        print(f"{path.name} {'is' if same else 'is not'} what is declared", file=sys.stderr)
        return 0 if same else 1
    path.write_bytes(wanted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
