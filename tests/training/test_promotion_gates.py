"""Each gate at, under and over its bound, and its reason word for word: people act on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stores.decisions import decisions_folder
from stores.settings import settings
from tests.training.made_models import FEATURE, against, made_card, made_model, stump_text
from training.gates import Verdict, card_path, champion_gate, outage_gate, registered_gate, replay_gate

pytestmark = pytest.mark.usefixtures("home")


def check(gate: str, passed: bool, reason: str) -> Verdict:
    return [{"gate": gate, "passed": passed, "reason": reason}]


WELL = [
    *check("digest", True, "model.txt has the digest that its manifest names"),
    *check("signed", True, "signed under this deployment's keys"),
    *check("calibrated", True, "Brier 0.001000 against 0.004000 of the base rate"),
    *check("evidence", True, "the evidence card is there"),
]


def test_a_card_is_where_the_documents_say(home: Path) -> None:
    assert card_path("v1") == settings().results / "models" / "v1" / "card.json"


def test_a_model_that_nobody_saved_is_not_registered() -> None:
    reason = "v1 is not in the model store; train and save it first"
    assert registered_gate("v1") == check("registered", False, reason)


def test_a_model_with_everything_in_order_passes() -> None:
    made_model("v1", card={})
    assert registered_gate("v1") == WELL


def test_a_text_that_was_changed_is_refused_by_digest_and_signature() -> None:
    folder = made_model("v1", card={})
    (folder / "model.txt").write_text("another\n")
    unsigned = "the service refuses what is not signed: `python -m training.save --sign v1`"
    changed = "model.txt is not the text that was registered; train it again"
    assert registered_gate("v1") == [
        *check("digest", False, changed), *check("signed", False, unsigned), *WELL[2:],
    ]  # fmt: skip


@pytest.mark.parametrize("signature", [None, "", "no hexadecimal", "ab" * 20])
def test_what_no_key_signed_is_refused(signature: str | None) -> None:
    folder = made_model("v1", signed=False, card={})
    if signature is not None:
        (folder / "signature").write_text(signature)
    unsigned = "the service refuses what is not signed: `python -m training.save --sign v1`"
    assert registered_gate("v1") == [WELL[0], *check("signed", False, unsigned), *WELL[2:]]


def test_a_signature_of_another_version_is_none() -> None:
    other = made_model("v2")
    folder = made_model("v1", signed=False, card={})
    for name in ("model.txt", "manifest.json", "signature"):
        (folder / name).write_bytes((other / name).read_bytes())
    assert [each["passed"] for each in registered_gate("v1")] == [True, False, True, True]


@pytest.mark.parametrize(
    ("brier", "frauds", "passed"), [(0.0041, 500, False), (0.0041, 20, True), (0.0045, 20, False)]
)
def test_a_model_that_knows_less_than_the_base_rate_is_refused(
    brier: float, frauds: int, passed: bool
) -> None:
    made_model("v1", card={}, metrics={"brier": brier, "brier_base_rate": 0.004, "frauds": frauds})
    reason = f"Brier {brier:.6f} against 0.004000 of the base rate"
    assert registered_gate("v1")[2] == check("calibrated", passed, reason)[0]


def test_a_model_without_evidence_is_refused_with_the_command_that_gathers_it() -> None:
    made_model("v1")
    reason = "no evidence card; run `python -m training.evidence`"
    assert registered_gate("v1") == [*WELL[:3], *check("evidence", False, reason)]


@pytest.mark.parametrize("champion", [None, "v2"])
def test_the_first_model_and_the_champion_itself_are_compared_with_nobody(champion: str | None) -> None:
    assert champion_gate("v2", champion) == check("champion", True, "no other champion to compare with")


@pytest.mark.parametrize("card", [None, {}, {"champion": None}, against("v0", 0.1, 0.0, 0.2)])
def test_a_card_that_compares_with_nobody_or_another_is_no_evidence(card: Any) -> None:
    made_model("v2")
    if card is not None:
        made_card("v2", card)
    reason = "the card does not compare with v1; run `python -m training.evidence`"
    assert champion_gate("v2", "v1") == check("champion", False, reason)


@pytest.mark.parametrize(
    ("difference", "high", "passed"),
    [
        (0.02, 0.03, True),
        (-0.01, -0.001, True),  # as much may be lost
        (-0.0101, -0.001, False),
        (-0.0101, 0.0, True),  # chance explains it
        (-0.2, 0.01, True),
        (-0.2, -0.01, False),
    ],
)
def test_a_challenger_may_be_a_hundredth_worse_or_as_much_as_chance_explains(
    difference: float, high: float, passed: bool
) -> None:
    made_model("v2", card=against("v1", difference, -0.3, high))
    reason = f"average precision {difference:+.4f} (95% -0.3000 to {high:+.4f}) against v1, same rows"
    assert champion_gate("v2", "v1") == check("champion", passed, reason)


def pattern(name: str, kind: str, **changes: float) -> dict[str, Any]:
    """What a card says of decisions while some views are missing: of 10,000 rows 1 in 50 reviewed, 1 in 100 blocked."""
    usual = {"rows": 10_000, "review_rate": 0.02, "block_rate": 0.01, "reviews_per_day": 20.0}
    return {"name": name, "kind": kind} | usual | changes


def outage(*patterns: dict[str, Any], usual: float = 0.02, budget: float = 100) -> Verdict:
    """The gate on a card of 3 % stopped undisturbed (1 % of them blocked), unless `usual` are reviewed."""
    block = 0.01 if usual else 0.0
    first = pattern("nothing", "none", review_rate=usual, block_rate=block)
    made_card("v2", {"alerts_per_day": budget, "patterns": [first, *patterns]})
    return outage_gate("v2")


@pytest.mark.parametrize("card", [None, {"patterns": None}, {"patterns": []}])
def test_a_card_without_figures_under_missing_views_is_no_evidence(card: Any) -> None:
    if card is not None:
        made_card("v2", card)
    reason = "no figures under missing views; run `python -m training.evidence`"
    assert outage_gate("v2") == check("outage", False, reason)


def test_without_any_pattern_nothing_can_be_worse() -> None:
    reason = "at worst without any view: 0% of what may be stopped then (undisturbed 3.00%)"
    assert outage() == check("outage", True, reason)


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        # Twice 3 % and three deviations of 10,000 rows: 0.06 + 3 x sqrt(0.06 / 10,000) = 0.067348
        ("view", 0.067348),
        ("entity", 0.067348),
        # Three times: 0.09 + 3 x sqrt(0.09 / 10,000) = 0.099
        ("engine", 0.099),
        ("everything", 0.099),
    ],
)
def test_an_outage_may_stop_two_or_three_times_as_many_and_what_chance_adds(kind: str, most: float) -> None:
    for share, passed in ((most - 1e-5, True), (most + 1e-5, False)):
        found = outage(pattern("that", kind, review_rate=share - 0.005, block_rate=0.005))
        reason = "at worst without that: 100% of what may be stopped then (undisturbed 3.00%)"
        assert found == check("outage", passed, reason)


@pytest.mark.parametrize(
    ("kind", "budget", "reviews", "passed"),
    [
        ("view", 100, 242, True),  # 200 + 3 x sqrt(200) = 242.4
        ("view", 100, 243, False),
        ("engine", 100, 351, True),  # 300 + 3 x sqrt(300) = 351.96
        ("engine", 100, 352, False),
        ("view", 0, 1, True),
        ("view", 0, 1.01, False),
    ],
)
def test_an_outage_brings_the_analysts_no_more_than_their_budget_allows(
    kind: str, budget: float, reviews: float, passed: bool
) -> None:
    (found,) = outage(pattern("that", kind, reviews_per_day=reviews), budget=budget)
    assert found["passed"] is passed and found["reason"].startswith("at worst without that: ")


@pytest.mark.parametrize(("share", "passed"), [(0.00029, True), (0.00031, False)])
def test_a_model_that_stops_nobody_may_stop_what_chance_brings_of_one_in_all_rows(
    share: float, passed: bool
) -> None:
    # 3 x sqrt((1 / 10,000) / 10,000) = 0.0003
    quiet = pattern("that", "view", review_rate=share, block_rate=0.0, reviews_per_day=0.0)
    assert outage(quiet, usual=0.0)[0]["passed"] is passed


def test_a_pattern_of_no_rows_is_judged_as_one_of_one() -> None:
    # 0.06 + 3 x sqrt(1 / 1) = 3.06
    (found,) = outage(pattern("that", "view", rows=0, review_rate=1.53, block_rate=0.0, reviews_per_day=0.0))
    assert found["reason"].startswith("at worst without that: 50% ")


def test_the_worst_pattern_is_named_the_first_of_them() -> None:
    few = pattern("few", "view", review_rate=0.01, block_rate=0.01)
    many, as_many = (
        pattern(name, "engine", review_rate=0.0891, block_rate=0.0) for name in ("many", "as many")
    )
    (found,) = outage(few, many, as_many, few)
    assert found["reason"] == "at worst without many: 90% of what may be stopped then (undisturbed 3.00%)"


STUMP = stump_text()


def log(home: Path, values: list[float], decisions: list[str], name: str = "a", **columns: list[Any]) -> None:
    folder = decisions_folder(home) / "date=2026-01-01" / "hour=00"
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({FEATURE: values, "decision": decisions} | columns)
    pq.write_table(table, folder / f"{name}.parquet")


def test_without_a_log_there_is_nothing_to_replay(home: Path) -> None:
    made_model("v1", STUMP)
    assert replay_gate("v1") == check("replay", True, "no decision log yet")
    decisions_folder(home).mkdir(parents=True)
    assert replay_gate("v1") == check("replay", True, "no decision log yet")


def test_a_log_without_rows_has_nothing_against_a_model(home: Path) -> None:
    made_model("v1", STUMP)
    log(home, [], [])
    assert replay_gate("v1") == check("replay", True, "the decision log is empty")


def test_a_log_of_another_vector_is_refused_by_the_first_feature_it_lacks(home: Path) -> None:
    made_model("v1", STUMP, features=[FEATURE, "first", "second"])
    log(home, [0.0], ["APPROVE"])
    assert replay_gate("v1") == check(
        "replay", False, "the decision log lacks first: the served vector differs"
    )


@pytest.mark.parametrize(
    ("alerts", "before", "passed"),
    [(0, 0, True), (15, 0, True), (16, 0, False), (15, 10, True), (18, 12, True), (19, 12, False)],
)
def test_half_as_many_alerts_again_are_taken_counted_from_ten(
    home: Path, alerts: int, before: int, passed: bool
) -> None:
    made_model("v1", STUMP)
    values = [1.0] * alerts + [0.0] * (40 - alerts)
    log(home, values, ["REVIEW", "BLOCK"] * (before // 2) + ["APPROVE"] * (40 - before))
    reason = f"{alerts} of 40 replayed decisions flagged, {before} were before"
    assert replay_gate("v1") == check("replay", passed, reason)


def test_a_score_is_calibrated_and_flagged_from_the_review_threshold_on(home: Path) -> None:
    half = {"kind": "isotonic", "x": [0.0, 1.0], "y": [0.5, 0.5]}
    for version, review, flagged in (("at", 0.5, 4), ("above", 0.51, 0)):
        made_model(version, STUMP, calibration=half, thresholds={"review": review, "block": 0.9})
        log(home, [0.0, 1.0] * 2, ["BLOCK"] * 4)
        assert replay_gate(version)[0]["reason"].startswith(f"{flagged} of 4 replayed")


def test_features_are_read_by_name_in_the_order_of_the_model(home: Path) -> None:
    import lightgbm
    import numpy as np

    rows = np.array([[0.0, 7.0], [1.0, 7.0]] * 50)
    chosen = {
        "objective": "binary",
        "num_leaves": 2,
        "min_data_in_leaf": 1,
        "learning_rate": 0.5,
        "verbose": -1,
    }
    booster = lightgbm.train(chosen, lightgbm.Dataset(rows, rows[:, 0], feature_name=["a", "b"]), 60)
    made_model("v1", booster.model_to_string(), features=["a", "b"])
    log(home, [0.0] * 4, ["APPROVE"] * 4, b=[7.0] * 4, a=[1, 1, 1, 0])
    assert replay_gate("v1")[0]["reason"] == "3 of 4 replayed decisions flagged, 0 were before"


def test_a_replay_reads_the_last_two_hundred_files_up_to_its_number_of_rows(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_model("v1", STUMP)
    for number in range(201):
        log(home, [1.0 if number == 0 else 0.0], ["APPROVE"], f"{number:03d}")
    assert replay_gate("v1")[0]["reason"] == "0 of 200 replayed decisions flagged, 0 were before"
    monkeypatch.setattr("training.gates.REPLAYED_ROWS", 150)
    assert replay_gate("v1")[0]["reason"] == "0 of 150 replayed decisions flagged, 0 were before"


def test_a_model_may_be_read_as_utf_8_and_its_manifest_as_json(home: Path) -> None:
    folder = made_model("v1", STUMP.replace(f"feature_names={FEATURE}", "feature_names=größe"))
    log(home, [1.0], ["APPROVE"])
    assert json.loads((folder / "manifest.json").read_bytes())["version"] == "v1"
    assert replay_gate("v1")[0]["reason"] == "1 of 1 replayed decisions flagged, 0 were before"
