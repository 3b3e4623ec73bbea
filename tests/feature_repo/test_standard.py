"""The platform's own features follow from their declaration: names, windows, functions, loops, Spark's columns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from feature_repo.derive import declared_standard, place_of
from fraud.declared.figures import Figure, encode_standard
from fraud.features.checks import standard_problems
from fraud.features.plan import shipped
from stores.settings import REPOSITORY

#: What a process of a checkout says of its features, and computes for one card with payments 30, 50 and 90
#: minutes ago.
_SAYS = """
import json
import numpy as np
from fraud.contract.transaction import parse_transaction
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES, VECTOR
from fraud.features.entities import ENTITIES, WINDOWS
from fraud.features.on_demand import transaction_features
from fraud.features.profiles import PROFILE_FEATURES
from fraud.features.request import request_row
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState

def at(number, minutes):
    return parse_transaction(json.dumps({
        "transaction_id": f"t{number}", "event_time": f"2026-03-01T{10 + minutes // 60:02d}:{minutes % 60:02d}:00Z",
        "customer_id": "c", "card_id": "k", "merchant_id": "m", "amount": "10.00", "currency": "USD",
        "channel": "pos"}).encode())

state = VelocityState(ENTITIES[1])
for number, minutes in enumerate((30, 70, 90)):
    state.add(observe(at(number, minutes)), 1)
row = {name: np.array([value]) for name, value in request_row(at(9, 120)).items()}
states = [[None], [state.pack()], [None], [None], [None], [None]]
known = {name: np.array([np.nan]) for name in PROFILE_INPUTS}
found = transaction_features(states, row, known)
print(json.dumps({
    "vector": VECTOR, "windows": [each.name for each in WINDOWS],
    "card": {name: values[0] for name, values in found.items() if name.startswith("card_txn_count")},
    "meanings": {each.name: each.meaning for each in TRANSACTION_FEATURES},
    "profiles": [each.name for each in PROFILE_FEATURES["card"]],
}))
"""


def test_what_is_shipped_is_what_the_definitions_declare() -> None:
    assert encode_standard(shipped()) == encode_standard(declared_standard())
    assert not standard_problems(shipped())


def test_a_feature_is_found_where_it_is_declared() -> None:
    file, _, line = place_of("merchant_share_30d").partition(":")
    text = (REPOSITORY / "feature_repo" / file).read_text().splitlines()
    assert any("merchant_share_30d" in each for each in text[int(line) - 1 : int(line) + 2])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The code of this checkout, for editing."""
    for room in ("feature_repo", "fraud", "stores", "machine"):
        shutil.copytree(
            REPOSITORY / room, tmp_path / "code" / room, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path / "code")
    return tmp_path / "code"


def run(checkout: Path, text: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    environment |= {"TOLLGATE_HOME": str(checkout / "home"), "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def says(checkout: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(checkout, _SAYS).splitlines()[-1])
    return found


def edit(checkout: Path, file: str, *changes: tuple[str, str]) -> None:
    path = checkout / "feature_repo" / file
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_an_edited_declaration_changes_what_is_computed_and_what_is_gone_is_gone_everywhere(
    checkout: Path,
) -> None:
    before = says(checkout)
    assert len(before["vector"]) == 296
    assert (before["card"]["card_txn_count_1h"], before["card"]["card_txn_count_24h"]) == (2.0, 3.0)
    edit(
        checkout, "standard_velocity.py",
        ('WINDOWS: Final = "1m 5m 30m 1h 24h"', 'WINDOWS: Final = "1m 5m 40m 2h 24h"'),
        ('"seconds_since_last",', '"seconds_since_last",'),
    )  # fmt: skip
    edit(
        checkout, "standard_request.py",
        ('f"{of}_txn_rate_1h_30d", "rate", f"{of}_txn_count_1h"', 'f"{of}_txn_rate_2h_30d", "rate", f"{of}_txn_count_2h"'),
    )  # fmt: skip
    edit(
        checkout, "standard_profiles.py",
        ('            figure(f"{of}_amount_std_{w}", "std", "amount", over=w,\n'
         '                   meaning=f"standard deviation of its amounts {back}", served=longer),\n', ""),
        ('"card": [*_history("card", "merchant"), _largest("card")]', '"card": _history("card", "merchant")'),
    )  # fmt: skip
    edit(checkout, "standard_request.py", (
        'for of in ("customer", "card", "merchant", "terminal") for word in _against(of)',
        'for of in ("customer", "merchant", "terminal") for word in _against(of)'))  # fmt: skip
    edit(
        checkout, "standard_request.py",
        ('        figure(f"{of}_amount_zscore_30d", "deviation", mean, std,\n'
         '               meaning=f"deviations of this amount from the {of}\'s 30-day mean"),\n', ""),
        ("    mean, std, most, count = (", "    mean, most, count = ("),
        ('("amount_mean", "amount_std", "amount_max", "txn_count")', '("amount_mean", "amount_max", "txn_count")'),
    )  # fmt: skip
    run(checkout, "from feature_repo.store import apply_definitions; apply_definitions()")
    after = says(checkout)
    registered = run(
        checkout,
        "import json\nfrom feature_repo.stored_definitions import stored_definitions\n"
        "found = stored_definitions('tollgate')\n"
        "print(json.dumps([[each.name for each in found.on_demand['transaction_features'].features],\n"
        "    [each.name for each in found.views['card_velocity'].features],\n"
        "    [each.name for each in found.views['card_profile'].features]]))\n",
    )
    made, states, profile = json.loads(registered.splitlines()[-1])
    assert set(made) == set(after["meanings"])
    assert "card_txn_count_2h" in states and "card_txn_count_1h" not in states
    assert "card_amount_std_30d" not in profile
    assert after["windows"] == ["1m", "5m", "40m", "1h", "2h", "24h"]
    assert after["card"] == {
        "card_txn_count_1m": 0.0, "card_txn_count_5m": 0.0, "card_txn_count_40m": 1.0,
        "card_txn_count_2h": 3.0, "card_txn_count_24h": 3.0,
    }  # fmt: skip
    gone = {"card_txn_count_1h", "card_amount_std_30d", "card_amount_max_30d", "card_amount_of_max_30d"}
    assert gone <= set(before["vector"]) and not gone & set(after["vector"])
    assert not gone & (set(after["meanings"]) | set(after["profiles"]))
    assert after["meanings"]["card_txn_count_2h"] == "transactions of the card in the last 2h"


def test_a_changed_meaning_under_an_old_name_is_refused_where_payments_were_decided(checkout: Path) -> None:
    edit(checkout, "standard_velocity.py", (
        'figure(f"{of}_seconds_since_first_txn", "seconds_since_first", over="30d"',
        'figure(f"{of}_seconds_since_first_txn", "seconds_since_first", over="20d"'))  # fmt: skip
    day = checkout / "home" / "lake" / "transactions" / "date=2026-03-01"
    day.mkdir(parents=True)
    (day / "one.parquet").write_bytes(b"")
    said = run(
        checkout,
        "from feature_repo.collect import write_plan\nfrom feature_repo.declare import DeclarationError\n"
        "try:\n    write_plan()\nexcept DeclarationError as error:\n    print(error)\n",
    )
    assert "card_seconds_since_first_txn meant `seconds_since_first() of card over 2592000000 ms`" in said
    assert "standard_velocity.py:" in said


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        (Figure("card_txn_count_7d", "count", (), 7 * 86_400_000), "between 1 minute and 24 hours"),
        (Figure("card_countries_24h", "count_distinct", ("country",), 86_400_000), "do not remember country"),
        (Figure("card_median_1h", "median", ("amount",), 3_600_000), "nothing that a standard state is read for"),
        (Figure("card_txn_count_1h", "count", (), 3_600_000), "is declared 2 times"),
    ],
)  # fmt: skip
def test_what_standard_states_cannot_do_is_refused(figure: Figure, says: str) -> None:
    from msgspec.structs import replace

    standard = shipped()
    velocities = [
        replace(view, figures=(*view.figures, figure)) if view.entity == "card" else view
        for view in standard.velocities
    ]
    problems = standard_problems(replace(standard, velocities=tuple(velocities)))
    assert any(name == figure.name and says in text for name, text in problems), problems
