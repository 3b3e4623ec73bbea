"""Whatever stands in a rule file, and in any other watched one, is refused with a reason; the ticker goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.base.guarded import guarded
from bentos.rules.rule_room import RuleRoom
from bentos.rules.ruleset import RuleError, load_rules

RULE = "rules:\n  - {name: big, when: amount > 1.0, action: review, reason: BIG}\n"

BROKEN = [
    "[" * 100_000,
    "rules: " + "{a: " * 50_000,
    "rules:\n  - {? [a] : b}\n",
    "rules:\n  - {? {a: b} : c, name: x}\n",
    "? [rules]\n: []\n",
    "rules:\n  - {name: big, when: '" + "(" * 66_000 + "', action: review, reason: BIG}\n",
    "rules:\n  - {name: big, when: 'amount > " + "1+" * 33_000 + "', action: review, reason: BIG}\n",
    RULE + "#" * 2_000_000,
    "rules:\n"
    + "".join(f"  - {{name: r{n}, when: amount > 1.0, action: review, reason: BIG}}\n" for n in range(1001)),
    "rules: !!python/object/apply:os.system ['true']\n",
    "a: &a [1]\nb: &b [*a, *a]\nrules: [*b, *b]\n",
    "rules:\n  - {name: big, when: [a], action: {b: c}, reason: BIG}\n",
    "\0",
    "\ufeffrules: [\ud7ff]",
]


@pytest.mark.finding(
    "L2", "low", "a rule file raised past RuleError, and a panic ended the ticker: all workers unready"
)
@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_refused_and_the_rules_before_stay(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULE)
    room = RuleRoom(path)
    room.refresh()
    assert [rule.name for rule in room.current.rules] == ["big"]
    path.write_text(text)
    room.refresh()
    assert room.error is not None
    assert [rule.name for rule in room.current.rules] == ["big"]


@pytest.mark.finding(
    "L2", "low", "a rule file raised past RuleError, and a panic ended the ticker: all workers unready"
)
def test_a_panic_of_the_expression_library_is_a_rule_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        """As pyo3 raises one."""

    def panics(_: str) -> None:
        raise Panic

    path = tmp_path / "rules.yaml"
    path.write_text(RULE)
    monkeypatch.setattr(cel, "compile", panics)
    with pytest.raises(RuleError, match="Panic"):
        load_rules(path)


@given(
    st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_are_rules_or_a_rule_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        load_rules(path)
    except RuleError as error:
        assert error.problems


@given(st.text("amount score><=&|!()[]{}'\"0123456789.+-*/%?:,null in", max_size=60))
def test_any_condition_is_a_rule_or_a_rule_error(
    tmp_path_factory: pytest.TempPathFactory, condition: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "condition.yaml"
    quoted = condition.replace("'", "''")
    path.write_text(f"rules:\n  - {{name: big, when: '{quoted}', action: review, reason: BIG}}\n")
    try:
        load_rules(path)
    except RuleError as error:
        assert error.problems


@pytest.mark.finding(
    "L2", "low", "a rule file raised past RuleError, and a panic ended the ticker: all workers unready"
)
def test_what_one_periodic_task_raises_keeps_no_other_from_its_turn() -> None:
    class Panic(BaseException):
        pass

    done = []

    def panics() -> None:
        raise Panic

    async def fails() -> None:
        raise RecursionError

    async def run() -> None:
        for work in (panics, fails, lambda: done.append(1)):
            await guarded("test", work)
        with pytest.raises(asyncio.CancelledError):
            await guarded("test", _cancelled)

    async def _cancelled() -> None:
        raise asyncio.CancelledError

    asyncio.run(run())
    assert done == [1]
