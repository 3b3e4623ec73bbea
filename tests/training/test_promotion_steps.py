"""Every step between register, shadow, canary and champion: what it changes, what it refuses, in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stores.decisions import decisions_folder
from stores.deployment import Change, Deployment, write_deployment
from stores.settings import settings
from tests.training.made_models import against, made_experiment, made_model
from training import promote
from training.gates import Verdict
from training.promote import PromotionError, main, read_deployment, read_history, status_text
from training.save import model_folder

pytestmark = pytest.mark.usefixtures("home")

#: Who is no worse than v1, by its card.
AS_GOOD = against("v1", 0.0, -0.1, 0.1)


def put(**changes: Any) -> None:
    """Make it so, as if by earlier steps."""
    after = msgspec.structs.replace(read_deployment(), **changes)
    write_deployment(settings().home, after, step="put", version="-", gates=[])


def now() -> Deployment:
    return read_deployment()


def last() -> Change:
    return read_history()[-1]


def refused(step: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    before, changes = now(), len(read_history())
    with pytest.raises(PromotionError) as caught:
        step(*arguments, **options)
    assert now() == before and len(read_history()) == changes
    return str(caught.value)


def test_a_shadow_scores_beside_and_decides_nothing() -> None:
    made_model("v2", card={})
    put(champion="v1", shadow=("v0",))
    verdict = promote.shadow("v2")
    assert now() == Deployment("v1", shadow=("v0", "v2"))
    assert (last().step, last().version, last().forced) == ("shadow", "v2", False)
    assert [each["gate"] for each in verdict] == ["digest", "signed", "calibrated", "evidence"]
    assert last().gates == verdict


def test_a_shadow_that_is_one_already_changes_nothing_and_is_judged_again() -> None:
    made_model("v2", card={})
    promote.shadow("v2")
    assert len(promote.shadow("v2")) == 4
    assert now().shadow == ("v2",) and len(read_history()) == 1


@pytest.mark.parametrize("place", ["champion", "challenger"])
def test_who_decides_is_no_shadow(place: str) -> None:
    made_model("v2", card={})
    put(**{place: "v2"})
    assert refused(promote.shadow, "v2") == "v2 decides already; retire it first"


def test_a_failed_gate_stops_a_step_with_its_reason_and_force_keeps_it_in_the_history() -> None:
    made_model("v2", signed=False)
    assert refused(promote.shadow, "v2") == (
        "signed: the service refuses what is not signed: `python -m training.save --sign v2`; "
        "evidence: no evidence card; run `python -m training.evidence`"
    )
    promote.shadow("v2", force=True)
    assert now().shadow == ("v2",) and last().forced


def test_a_canary_leaves_the_shadow_and_decides_a_tenth_unless_told_otherwise() -> None:
    made_model("v2", card=AS_GOOD)
    put(champion="v1", shadow=("v0", "v2", "v3"))
    verdict = promote.canary("v2")
    assert now() == Deployment("v1", "v2", 0.1, experiment="v2", shadow=("v0", "v3"))
    assert (last().step, last().version) == ("canary", "v2")
    assert [each["gate"] for each in verdict] == [
        "digest",
        "signed",
        "calibrated",
        "evidence",
        "outage",
        "champion",
        "replay",
    ]
    assert last().gates == verdict
    promote.canary("v2", share=0.25, force=True)
    assert now() == Deployment("v1", "v2", 0.25, experiment="v2", shadow=("v0", "v3"))


def test_the_challenger_before_goes_back_to_shadow() -> None:
    made_model("v3", card=AS_GOOD)
    put(champion="v1", challenger="v2", shadow=("v3",))
    promote.canary("v3")
    assert now() == Deployment("v1", "v3", 0.1, experiment="v3", shadow=("v2",))


@pytest.mark.parametrize(("share", "said"), [(0, "0"), (-0.1, "-0.1"), (0.501, "0.501"), (1, "1")])
def test_a_canary_is_some_of_the_customers_and_at_most_half(share: float, said: str) -> None:
    made_model("v2", card=AS_GOOD)
    put(champion="v1", shadow=("v2",))
    assert refused(promote.canary, "v2", share=share) == f"share {said} should lie above 0 and at most 0.5"
    promote.canary("v2", share=0.5)
    assert now().share == 0.5


def test_a_canary_comes_from_the_shadow_unless_forced() -> None:
    made_model("v2", card=AS_GOOD)
    put(champion="v1")
    first = "v2 is not in shadow; run `python -m training.promote shadow v2` first"
    assert refused(promote.canary, "v2") == first
    promote.canary("v2", force=True)
    assert now().challenger == "v2"


def test_a_canary_is_held_to_the_champion_and_to_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    made_model("v2", card=against("v1", -0.5, -0.6, -0.4))
    put(champion="v1", shadow=("v2",))
    assert refused(promote.canary, "v2").startswith("champion: average precision -0.5000")
    flood = [{"gate": "replay", "passed": False, "reason": "40 of 40 flagged"}]
    asked: list[str] = []

    def replayed(version: str) -> Verdict:
        asked.append(version)
        return flood

    monkeypatch.setattr(promote, "replay_gate", replayed)
    verdict = promote.canary("v2", force=True)
    assert asked == ["v2"] and verdict[-1] == flood[0] and last().forced
    monkeypatch.setattr(promote, "champion_gate", lambda version, champion: [])
    assert refused(promote.canary, "v2", force=False) == (
        "v2 is not in shadow; run `python -m training.promote shadow v2` first"
    )
    put(shadow=("v2",), challenger=None)
    assert refused(promote.canary, "v2") == "replay: 40 of 40 flagged"


def test_a_challenger_becomes_champion_and_leaves_its_place() -> None:
    made_model("v2", card=AS_GOOD)
    put(champion="v1", challenger="v2", share=0.3, shadow=("v2", "v3"))
    made_experiment("v2", "v1")
    verdict = promote.champion("v2", why="worth more")
    assert now() == Deployment("v2", None, 0.3, shadow=("v3",))
    assert (last().step, last().version, last().gates) == ("champion", "v2", verdict)
    assert [each["gate"] for each in verdict][-3:] == ["champion", "experiment", "parity"]
    assert (last().by, last().why) == (promote.who(), "worth more")
    assert status_text(now(), read_history()).endswith(f"v2 by {promote.who()} (worth more)")


@pytest.mark.parametrize("verdict", ["worse", "undecided", "go on", "void"])
def test_a_canary_whose_own_decisions_were_not_worth_as_much_stays_one(verdict: str) -> None:
    made_model("v2", card=AS_GOOD)
    put(champion="v1", challenger="v2")
    missing = "experiment: no report on its decisions beside v1's; run `make experiment-report`"
    assert refused(promote.champion, "v2") == missing
    made_experiment("v2", "v0")  # of an earlier champion's time
    assert refused(promote.champion, "v2") == missing
    made_experiment("v2", "v1", verdict)
    assert refused(promote.champion, "v2") == f"experiment: {verdict}: by hand"
    made_experiment("v2", "v1", "equal")
    promote.champion("v2")
    assert now().champion == "v2"


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (None, "served vectors were not held against a rebuild; run `make parity`"),
        ((1_000, 2, {}, 0), "2 of 1000 served rows differ from the rebuild, 0 without a known cause"),
        ((1_000, 1, {"unexplained": 1}, 0), "1 of 1000 served rows differ from the rebuild, 1 without a known cause"),
        ((1_000, 0, {}, 3), "0 of 1000 served rows differ from the rebuild, 3 without a known cause"),
        ((1_000, 1, {"timeout": 1}, 0), None),
    ],
)  # fmt: skip
def test_who_becomes_champion_was_served_what_it_was_trained_on(report: Any, said: str | None) -> None:
    made_model("v2", card=AS_GOOD)
    put(champion="v1", challenger="v2")
    made_experiment("v2", "v1")
    hour = decisions_folder(settings().home) / "date=2026-01-01" / "hour=00"
    hour.mkdir(parents=True)
    (hour / "a.parquet").write_bytes(b"")
    if report is not None:
        rows, different, causes, unmatched = report
        path = settings().results / "parity" / "parity.json"
        path.parent.mkdir(parents=True)
        found = {"rows": rows, "mismatched_rows": different, "causes": causes, "unmatched": unmatched}
        path.write_text(json.dumps(found))
    if said is None:
        promote.champion("v2")
        assert now().champion == "v2"
    else:
        assert refused(promote.champion, "v2") == f"parity: {said}"


def test_only_the_challenger_becomes_champion_unless_forced() -> None:
    made_model("v2", card=AS_GOOD)
    put(champion="v1", challenger="v3")
    first = "v2 is not the challenger; run `python -m training.promote canary v2` first"
    assert refused(promote.champion, "v2") == first
    promote.champion("v2", force=True)
    assert now() == Deployment("v2", "v3")


def test_a_champion_is_held_to_its_gates() -> None:
    made_model("v2")
    assert refused(promote.champion, "v2") == "evidence: no evidence card; run `python -m training.evidence`"
    promote.champion("v2", force=True)
    assert now() == Deployment("v2") and last().forced


def test_a_worse_challenger_becomes_no_champion() -> None:
    made_model("v2", card=against("v1", -0.5, -0.6, -0.4))
    put(champion="v1", challenger="v2")
    assert refused(promote.champion, "v2").startswith("champion: average precision -0.5000")


def test_the_first_model_of_all_is_champion_at_once_and_the_second_is_not() -> None:
    made_model("v1", card={})
    made_model("v2", card=AS_GOOD)
    assert promote.first_champion("v1") is True
    assert promote.first_champion("v2") is False
    assert now() == Deployment("v1")


def test_the_first_model_is_gated_as_any() -> None:
    assert refused(promote.first_champion, "v1") == (
        "registered: v1 is not in the model store; train and save it first"
    )


def test_to_retire_is_one_step_back() -> None:
    put(champion="v1", challenger="v2", shadow=("v0", "v3"))
    promote.retire("v2")
    assert now() == Deployment("v1", shadow=("v0", "v3", "v2"))
    assert (last().step, last().version, last().gates, last().forced) == ("retire", "v2", [], False)
    promote.retire("v0")
    assert now() == Deployment("v1", shadow=("v3", "v2"))
    assert (last().step, last().version, last().gates) == ("retire", "v0", [])


def test_a_champion_and_a_stranger_cannot_be_retired() -> None:
    put(champion="v1")
    assert refused(promote.retire, "v1") == "the champion cannot be retired, only replaced or rolled back"
    assert refused(promote.retire, "v9") == "v9 is neither challenger nor in shadow"


def test_rollback_gives_back_to_the_champion_before_this_one() -> None:
    #  v1, v2, v3, v3 again with a challenger: before v3 was v2
    for version in ("v1", "v2"):
        made_model(version)
    for champion in ("v1", "v2", "v3"):
        put(champion=champion)
    put(challenger="v4", shadow=("v2", "v5"))
    assert promote.rollback() == "v2"
    assert now() == Deployment("v2", "v4", shadow=("v5",))
    assert (last().step, last().version, last().gates) == ("rollback", "v2", [])


def test_the_champion_before_is_no_challenger_after_a_rollback() -> None:
    made_model("v1")
    for champion in ("v1", "v2"):
        put(champion=champion)
    put(challenger="v1")
    promote.rollback()
    assert now() == Deployment("v1", None)


def test_without_an_earlier_champion_there_is_no_way_back() -> None:
    assert refused(promote.rollback) == "there is no earlier champion to go back to"
    put(champion="v1")
    assert refused(promote.rollback) == "there is no earlier champion to go back to"


def test_an_earlier_champion_that_was_deleted_is_none() -> None:
    made_model("v1")
    for champion in ("v1", "v2"):
        put(champion=champion)
    (model_folder("v1") / "model.txt").unlink()
    assert refused(promote.rollback) == "the earlier champion v1 is no longer in the model store"


def test_who_decides_is_told_in_three_lines_and_the_last_ten_changes() -> None:
    assert status_text(Deployment(), []) == "champion    -\nchallenger  -\nshadow      -"
    state = Deployment("v1", "v2", 0.25, shadow=("v3", "v4"))
    history = [
        Change(f"2026-01-{day:02}T00:00:00+00:00", "canary", f"v{day}", day == 12, [], state, state)
        for day in range(1, 13)
    ]
    lines = status_text(state, history).splitlines()
    assert lines[:3] == ["champion    v1", "challenger  v2 (25%)", "shadow      v3, v4"]
    assert lines[3] == "  2026-01-03T00:00:00+00:00  canary    v3"
    assert lines[-1] == "  2026-01-12T00:00:00+00:00  canary    v12 (forced)"
    assert len(lines) == 3 + 10


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command; its exit code and what it printed."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_command_walks_every_step_and_tells_where_it_is(
    told: Callable[..., tuple[int, str, str]],
) -> None:
    made_model("v1", card={})
    made_model("v2", card=AS_GOOD)
    assert told("status") == (0, "champion    -\nchallenger  -\nshadow      -\n", "")
    assert told("champion", "v1")[1].startswith("champion    v1\n")
    assert "shadow      v2\n" in told("shadow", "v2")[1]
    assert "challenger  v2 (10%)\n" in told("canary", "v2")[1]
    assert "shadow      v2\n" in told("retire", "v2")[1]
    assert "challenger  v2 (30%)\n" in told("canary", "v2", "--share", "0.3")[1]
    made_experiment("v2", "v1")
    assert told("champion", "v2", "--why", "worth more")[1].startswith("champion    v2\nchallenger  -\n")
    code, out, _ = told("rollback")
    assert code == 0 and out.startswith("champion    v1\n")
    assert [change.step for change in read_history()] == [
        "champion", "shadow", "canary", "retire", "canary", "champion", "rollback",
    ]  # fmt: skip


@pytest.mark.parametrize("step", ["shadow", "canary", "champion"])
def test_the_command_says_why_not_and_can_be_forced(
    step: str, told: Callable[..., tuple[int, str, str]]
) -> None:
    made_model("v2")
    put(champion="v1")
    code, out, err = told(step, "v2")
    assert (code, out) == (1, "") and err.startswith("promote: ") and err.count("\n") == 1
    assert told(step, "v2", "--force")[0] == 0
    assert last().step == step and last().forced


def test_the_command_names_what_is_wrong_with_a_version_or_a_deployment(
    told: Callable[..., tuple[int, str, str]],
) -> None:
    assert told("rollback") == (1, "", "promote: there is no earlier champion to go back to\n")
    assert told("shadow", "../v1")[2].startswith("promote: '../v1' is no version")
    path = settings().home / "deployment.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"split": 1}))
    assert told("status")[2].startswith("promote: deployment.json: Object contains unknown field `split`")


@pytest.mark.parametrize(
    "words", [[], ["demote"], ["shadow"], ["retire", "v1", "--force"], ["shadow", "v1", "--share", "1"]]
)
def test_words_that_the_command_does_not_know_are_refused_with_its_use(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m training.promote")


def test_the_command_explains_its_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for words, lines in (
        (
            ["--help"],
            ["Promote or demote a model.", "status    who decides now, and the last changes",
             "rollback  give the decisions back to the earlier champion", "shadow    score beside the champion",
             "canary    decide for a share of customers", "champion  decide for everyone", "retire    one step back"],
        ),
        (
            ["canary", "--help"],
            ["--force        pass failed gates; the history keeps that", "--share SHARE  share of customers"],
        ),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        for line in lines:
            assert " ".join(line.split()) in printed
