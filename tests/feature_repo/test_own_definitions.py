"""A team's own definitions: what is refused, with file and line, and what a plan says before it happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_repo.collect import declarations_of, read_own, stored, write_plan
from feature_repo.declare import DeclarationError
from feature_repo.plan import main, plan_of, text_of
from fraud.declared.declaration import Declarations, decode, encode, named
from fraud.declared.layout import layout_of
from stores.declared import declared
from stores.settings import Settings, settings
from tests.declared.tutorial import tutorial_file, write_tutorial

NOW = 1_772_323_200_000


@pytest.fixture
def chosen(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("TOLLGATE_FEATURES", str(tmp_path / "features"))
    (tmp_path / "features").mkdir()
    settings.cache_clear()
    yield settings()
    settings.cache_clear()


def declare(chosen: Settings, text: str, before: Declarations | None = None) -> Declarations:
    assert chosen.feast.own is not None
    (chosen.feast.own / "cards.py").write_text(text)
    return declarations_of(read_own(chosen.feast.own), before or Declarations(), 0)


def refused(chosen: Settings, text: str, before: Declarations | None = None) -> tuple[str, ...]:
    with pytest.raises(DeclarationError) as caught:
        declare(chosen, text, before)
    return caught.value.problems


def changed(old: str, new: str) -> str:
    text = tutorial_file()
    assert old in text
    return text.replace(old, new)


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_tutorial_declares_what_it_says(chosen: Settings) -> None:
    found = declare(chosen, tutorial_file())
    assert [each.name for each in found.attributes] == ["entry_mode", "email_domain"]
    assert [(view.name, view.key) for view in found.streams] == [
        ("card_risk", "card_id"), ("email_velocity", "email_domain"),
    ]  # fmt: skip
    history, kyc = found.tables
    (batch,) = found.batches
    assert (history.name, history.key, set(history.features)) == (
        "email_history", "email_domain", {each.name for each in batch.figures},
    )  # fmt: skip
    assert [(each.function, each.column, each.window_ms // 86_400_000) for each in batch.figures] == [
        ("count", "", 90), ("count_if", "is_ecom", 7), ("std", "amount", 30), ("fraud_rate", "", 1),
    ]  # fmt: skip
    assert (kyc.key, set(kyc.features)) == ("customer_id", {"credit_limit", "is_vip"})
    assert len(found.order) == 18 and found.services[0].name == "fraud_scoring_v2"
    assert decode(encode(found)) == found


@pytest.mark.parametrize(
    ("old", "new", "part", "says"),
    [
        ('column="country", function="count_distinct"', 'column="contry", function="count_distinct"',
         "card_countries_24h", "contry is neither a field of the event, an attribute nor a measure"),
        ('column="amount", function="max"', 'column="amount", function="median"', "card_amount_max_24h",
         "median is no function"),
        ('column="amount", function="max"', 'column="country", function="max"', "card_amount_max_24h",
         "max needs a number, and country is a value"),
        ('name="email_count_1h"', 'name="card_count_7d"', "card_count_7d", "is declared 2 times"),
        ('name="card_count_7d"', 'name="card_txn_count_1h"', "card_txn_count_1h",
         "is taken: a standard feature has that name"),
        ("DAYS(7)", "DAYS(31)", "card_count_7d", "window should be between 1 minute and 30 days"),
        ("channel == 'ecom'", "chanel == 'ecom'", "is_ecom", "chanel is neither a field"),
        ("amount < 200.0", "amount + 1 < 200.0", "is_small", "write numbers as 200.0"),
        ("channel == 'ecom'", "channel ==", "is_ecom", ""),
        ("amount / (credit_limit * 100.0)", "amount / (credit_limt * 100.0)", "amount_over_limit = ",
         "credit_limt is neither"),
        ('column=is_ecom, function="count_if"', 'column="amount", function="count_if"',
         "card_ecom_count_1h", "count_if needs a condition"),
        ("DAYS(90)", "DAYS(367)", "email_count_90d", "its window should be whole days, 1 to 366"),
        ('column="amount", function="std"', 'column="country", function="std"', "email_amount_std_30d",
         "std needs a number, and country is a value"),
        ('function="fraud_rate"', 'function="category_mean"', "email_fraud_rate_1d",
         "category_mean is no function of batch views"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_line(
    chosen: Settings, old: str, new: str, part: str, says: str
) -> None:
    text = changed(old, new)
    problems = refused(chosen, text)
    assert any(says in each for each in problems), problems
    lines = {each.split(":")[1] for each in problems if each.startswith("cards.py:")}
    near = {str(number) for number in range(line_of(text, part) - 12, line_of(text, part) + 12)}
    assert lines & near, problems


def test_every_problem_is_said_at_once(chosen: Settings) -> None:
    text = changed("DAYS(7)", "DAYS(31)").replace('function="max"', 'function="median"')
    assert len(refused(chosen, text)) == 2


def test_a_file_that_does_not_run_is_named_with_its_line(chosen: Settings) -> None:
    (problem,) = refused(chosen, "from datetime import timedelta\n\nnothing_of_that_name\n")
    assert problem.startswith("cards.py:3: NameError")


def test_another_meaning_under_an_old_name_is_refused(chosen: Settings) -> None:
    before = declare(chosen, tutorial_file())
    for old, new, name in (
        ("DAYS(7)", "DAYS(8)", "card_count_7d"),
        ("amount < 200.0", "amount < 300.0", "card_small_count_5m"),
        ("chip=0", "chip=7", "entry_mode"),
        ("credit_limit * 100.0", "credit_limit * 99.0", "amount_over_limit"),
    ):
        problems = refused(chosen, changed(old, new), before)
        assert any(f"{name} meant" in each and "a name of its own" in each for each in problems), problems


def test_a_longer_window_changes_no_other_feature_and_gives_its_view_a_layout_of_its_own(
    chosen: Settings,
) -> None:
    before = declare(chosen, tutorial_file())
    text = changed(
        '    Aggregation(function="count", time_window=HOURS(1), name="email_count_1h"),\n',
        '    Aggregation(function="count", time_window=HOURS(1), name="email_count_1h"),\n'
        '    Aggregation(function="count", time_window=DAYS(7), name="email_count_7d"),\n',
    )
    after = declarations_of_at(chosen, text, before)
    old = {view.name: layout_of(view).digest for view in before.streams}
    new = {view.name: layout_of(view).digest for view in after.streams}
    assert old["card_risk"] == new["card_risk"] and old["email_velocity"] != new["email_velocity"]
    assert after.order == (*before.order, "email_count_7d")
    since = {view.name: view.known_from_ms for view in after.streams}
    assert since == {"card_risk": 0, "email_velocity": NOW}  # it warms up from now on, or is rebuilt
    plan = plan_of(after, before, chosen)
    assert plan.new == ("email_count_7d",) and plan.relaid == ("email_velocity",) and plan.gone == ()
    assert "starts anew" in text_of(plan) or "start anew" in text_of(plan)


def declarations_of_at(chosen: Settings, text: str, before: Declarations) -> Declarations:
    assert chosen.feast.own is not None
    (chosen.feast.own / "cards.py").write_text(text)
    return declarations_of(read_own(chosen.feast.own), before, NOW)


def test_a_name_that_is_gone_keeps_its_place_in_the_served_row(chosen: Settings) -> None:
    before = declare(chosen, tutorial_file())
    text = changed('    Aggregation(function="count", time_window=HOURS(1), name="email_count_1h"),\n', "")
    after = declarations_of_at(chosen, text, before)
    assert after.order == before.order
    assert plan_of(after, before, chosen).gone == ("email_count_1h",)


def test_the_command_prints_what_would_happen_and_changes_nothing(
    chosen: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen.feast.own is not None
    write_tutorial(chosen.feast.own)
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "card_amount_max_24h" in printed and "bytes a state" in printed
    assert stored(chosen) == Declarations() and declared(chosen).declarations == Declarations()
    write_plan(chosen)
    assert declared(chosen).declarations.services[0].name == "fraud_scoring_v2"
    assert main([]) == 0
    assert "new: nothing" in capsys.readouterr().out
    (chosen.feast.own / "cards.py").write_text(changed("DAYS(7)", "DAYS(9)"))
    assert main([]) == 1
    assert "card_count_7d meant" in capsys.readouterr().err


def test_a_view_that_was_gone_and_comes_back_has_other_states(chosen: Settings) -> None:
    """Its old ones, in Redis and in the stream's snapshot, missed what happened meanwhile."""
    text = tutorial_file()
    first = declare(chosen, text)
    assert declarations_of_at(chosen, text, first) == first  # what stays keeps its states
    begin, end = text.index("email_velocity = stream_view("), text.index("# Computed by Spark")
    without = (text[:begin] + text[end:]).replace("card_risk, email_velocity,", "card_risk,")
    gone = declarations_of_at(chosen, without, first)
    assert [view.name for view in gone.streams] == ["card_risk"]
    again = declarations_of_at(chosen, text, gone)
    digests = [{view.name: layout_of(view).digest for view in each.streams} for each in (first, again)]
    assert digests[0]["card_risk"] == digests[1]["card_risk"]
    assert digests[0]["email_velocity"] != digests[1]["email_velocity"]
    assert again.streams[1].known_from_ms == NOW and again.order == first.order
    assert plan_of(again, gone, chosen).new_views == ("email_velocity",)


def test_a_longer_window_leaves_every_other_view_and_feature_as_it_is(chosen: Settings) -> None:
    before = declare(chosen, tutorial_file())
    more = changed(
        '    Aggregation(function="count", time_window=HOURS(1), name="email_count_1h"),\n',
        '    Aggregation(function="count", time_window=HOURS(1), name="email_count_1h"),\n'
        '    Aggregation(function="count", time_window=DAYS(30), name="email_count_30d"),\n',
    )
    after = declarations_of_at(chosen, more, before)
    old, new = named(before), named(after)
    assert {name: new[name] for name in old} == old and new.keys() - old.keys() == {"email_count_30d"}
    assert after.streams[0] == before.streams[0]
    assert layout_of(after.streams[0]).digest == layout_of(before.streams[0]).digest
    assert after.order[: len(before.order)] == before.order


def test_distances_need_the_place_and_nothing_else_takes_it(chosen: Settings) -> None:
    where = 'column="amount", function="max"'
    (problem,) = refused(chosen, changed(where, 'column="amount", function="speed_kmh"'))
    assert "speed_kmh needs a place, and amount is a number" in problem and "cards.py:" in problem
    (problem,) = refused(chosen, changed(where, 'column="location", function="max"'))
    assert "max needs a number, and location is a place" in problem
    found = declare(chosen, changed(where, 'column="location", function="speed_kmh"'))
    assert found.streams[0].aggregates[5].column == "location"


def test_short_forms_are_expressions_with_the_line_of_the_file_that_uses_them(chosen: Settings) -> None:
    short = """from feature_repo.declare import deviation, rate, ratio
per_limit = ratio("amount_per_limit", "amount", "credit_limit", of=[customer_kyc])
faster = rate("kyc_rate", "amount", HOURS(1), "credit_limit", DAYS(30), of=[customer_kyc])
off = deviation("amount_off", "amount", "credit_limit", "credit_limit", of=[customer_kyc])
"""
    text = changed("\nown = [", f"\n{short}\nown = [per_limit, faster, off, ")
    found = {each.name: each.expression for each in declare(chosen, text).expressions}
    assert found["amount_per_limit"] == "amount / credit_limit"
    assert found["kyc_rate"] == "amount * 720.0 / credit_limit"
    assert found["amount_off"] == "(amount - credit_limit) / credit_limit"
    wrong = text.replace('"amount", "credit_limit", of', '"amount", "credit_limits", of')
    (problem,) = refused(chosen, wrong)
    assert f"cards.py:{line_of(wrong, 'per_limit = ratio')}" in problem
