"""What ``feast apply`` registers: the platform's own definitions, and those of a team beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import feature_repo

# The `feast` script finds packages as its interpreter does, not in the folder that it was given: with two
# checkouts it would take the views of one and the code of the other, without a word.
_CODE = Path(feature_repo.__path__[0]).resolve()
_ASKED = Path(__file__).resolve().parent
if _ASKED != _CODE:
    raise ImportError(
        f"these are the definitions of {_ASKED}, but this `feast` runs the code of {_CODE}: use "
        f"`{_ASKED.parent}/.venv/bin/tollgate feast`, or activate that environment"
    )

from feature_repo import standard  # noqa: E402
from feature_repo.collect import load_own  # noqa: E402

own = load_own()

# Feast takes every object that a module of the repository names.
globals().update({name: value for name, value in vars(standard).items() if not name.startswith("_")})
globals().update({f"own_{place}": each for place, each in enumerate(own.objects)})


def objects() -> list[Any]:
    """What ``feast apply`` finds here, for applying from code."""
    return [*standard.objects(), *own.everything()]
