"""Which views a row lacks, which columns that leaves unknown, and which pattern counts for it."""

from __future__ import annotations

import numpy as np
import pytest

from fraud.declared.declaration import Aggregate, Declarations, Expression, StreamView, TableView
from fraud.features.entities import ENTITIES
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES, VECTOR
from fraud.features.on_demand import transaction_matrix
from fraud.features.profiles import SERVED_PROFILES
from stores.declared import Declared
from stores.patterns import EVERYTHING, PROFILES, STATES, masked, smallest, views
from tests.fraud.test_features import rows_of

KEYS = {entity.key for entity in ENTITIES}


def status(**changed: str) -> dict[str, str]:
    """All views fresh, but for those of terminal, device and ip, which the transaction does not name."""
    named = ("customer", "card", "merchant")
    return {
        view: "fresh" if view.split("_")[0] in named else "missing" for view in views().key
    } | changed  # fmt: skip


def pattern_of(found: dict[str, str]) -> str | None:
    of = views()
    named = {"customer_id", "card_id", "merchant_id"}
    pattern = smallest(of.patterns(), of.lost(found, named.__contains__))
    return None if pattern is None else pattern.name


@pytest.mark.parametrize(
    ("found", "pattern"),
    [
        (status(), None),
        (status(customer_profile="stale"), "customer_profile"),
        (status(card_velocity="timeout"), "card_velocity"),
        (status(card_velocity="timeout", card_profile="timeout"), "card"),
        # Nobody has seen this customer: there is nothing to lose.
        (status(customer_profile="missing", customer_velocity="missing"), None),
        # Its first purchases since the last cut: a state, no profile yet.
        (status(customer_profile="missing"), None),
        # A profile without a state: the state was lost.
        (status(merchant_velocity="missing"), "merchant_velocity"),
        (status(**{f"{name}_profile": "stale" for name in ("customer", "card", "merchant")}), PROFILES),
        (status(**{f"{name}_profile": "missing" for name in ("customer", "card", "merchant")}), PROFILES),
        (status(**{f"{name}_velocity": "timeout" for name in ("customer", "card", "merchant")}), STATES),
        (status(**dict.fromkeys(views().key, "timeout")), EVERYTHING),
        (status(customer_profile="timeout", card_velocity="timeout"), EVERYTHING),
    ],
)
def test_the_pattern_of_a_row_is_the_smallest_that_covers_what_was_lost(
    found: dict[str, str], pattern: str | None
) -> None:
    assert pattern_of(found) == pattern


@pytest.mark.parametrize("place", range(len(ENTITIES)))
def test_a_view_leaves_just_those_columns_unknown_that_are_computed_from_it(place: int) -> None:
    """The feature functions without the state, or without the profile, say which columns need it."""
    entity, of = ENTITIES[place], views()
    states, request, profiles = rows_of(11, 400)
    whole = transaction_matrix(states, request, profiles)
    names = [feature.name for feature in TRANSACTION_FEATURES]

    without = [[None] * 400 if at == place else column for at, column in enumerate(states)]
    found = transaction_matrix(without, request, profiles)
    unknown = of.columns[entity.velocity_view]
    needed = {name for at, name in enumerate(names) if np.isnan(found[:, at]).all()}
    assert {name for name in unknown if name in names} <= needed
    for at, name in enumerate(names):
        # Novelty of a pair is known by either side; the time that counts by the customer's own states.
        if name not in unknown and "_new_" not in name and entity.name not in ("customer", "card"):
            np.testing.assert_array_equal(found[:, at], whole[:, at], err_msg=name)

    mine = [name for name in PROFILE_INPUTS if name in SERVED_PROFILES[entity.name]]
    blank = profiles | {name: np.full(400, np.nan) for name in mine}
    found = transaction_matrix(states, request, blank)
    unknown = of.columns[entity.profile_view]
    for at, name in enumerate(names):
        if name in unknown:
            assert np.isnan(found[:, at]).all(), name
        else:
            np.testing.assert_array_equal(found[:, at], whole[:, at], err_msg=name)


def test_masking_everything_leaves_what_the_transaction_itself_says() -> None:
    of = views()
    everything = of.patterns()[-1]
    row = masked(np.ones((1, len(VECTOR))), VECTOR, everything)[0]
    known = {name for name, value in zip(VECTOR, row, strict=True) if not np.isnan(value)}
    assert known == {feature.name for feature in TRANSACTION_FEATURES if feature.entity is None}


def test_own_views_belong_to_their_engines_and_expressions_to_what_they_read() -> None:
    own = Declared(
        Declarations(
            streams=(
                StreamView("atm_use", "customer", "customer_id", 1, (Aggregate("atm_1h", "count", "*", 1),)),
            ),
            tables=(TableView("scores", "customer", "customer_id", 1, ("bureau",)),),
            expressions=(Expression("risky", "bureau * 2.0"), Expression("riskier", "risky + atm_1h")),
            order=("atm_1h", "bureau", "risky", "riskier"),
        )
    )
    of = views(own)
    assert "atm_use" in of.states and "scores" in of.profiles
    assert of.columns["scores"] == {"bureau", "risky", "riskier"}
    assert of.columns["atm_use"] == {"atm_1h", "riskier"}
