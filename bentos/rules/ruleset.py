"""Decision rules from a file: CEL expressions, checked when loaded, evaluated in microseconds.

CEL (https://cel.dev) is not Turing-complete and cannot reach outside its variables: no rule can
run code, loop for ever or read a file.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import cel
import numpy as np
import numpy.typing as npt
import yaml

from bentos.base.guarded import EXITS
from fraud.contract.fields import FIELDS
from fraud.contract.transaction import Transaction
from fraud.decision.rules import ACTIONS, Action, Rule
from stores.declared import Declared, declared

DEFAULT_RULES: Final = Path(__file__).with_name("rules.yaml")
#: Bounds of a file, of its rules and of one condition.
_LARGEST: Final = 1_000_000
_MOST: Final = 1_000
_LONGEST: Final = 4_096
_KEYS: Final = frozenset({"name", "when", "action", "reason", "adjust"})
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{1,47}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{1,63}")
#: Fields of a transaction that rules may read; `amount` is in reference cents.
_TEXT_FIELDS: Final = frozenset(FIELDS) - {"amount", "event_time", "latitude", "longitude"}
_NUMBER_FIELDS: Final = frozenset({"amount", "latitude", "longitude"})
_FIELDS: Final = _TEXT_FIELDS | _NUMBER_FIELDS
_LATENESS: Final = "lateness_seconds"
_KNOWN_FUNCTIONS: Final = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "double", "int", "string"}
)


class RuleError(ValueError):
    """A rule file that cannot be used: every problem, each with its line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq,
}  # fmt: skip
_SIMPLE: Final = re.compile(r"\s*([a-z]\w*)\s*(>=|<=|==|>|<)\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A rule ready to run. It can hold only if no value it `needs` is missing and every one of
    its `conditions` (name, comparison, number) holds: most rules end there, without CEL."""

    rule: Rule
    execute: Callable[[dict[str, Any]], Any]
    variables: tuple[str, ...]
    needs: tuple[str, ...]
    conditions: tuple[tuple[str, Callable[[Any, Any], bool], float], ...]


def _necessary(when: str) -> tuple[tuple[str, Callable[[Any, Any], bool], float], ...]:
    """Comparisons of a number that stand alone between `&&`: false if any of them is."""
    if any(character in when for character in ("||", "?", "(", "[", "{", "'")) or re.search(
        r'"[^"]*&&', when
    ):
        return ()  # anything that could make a part less than necessary is left to CEL alone
    found = []
    for part in when.split("&&"):
        match = _SIMPLE.fullmatch(part)
        if match is not None:
            found.append((match.group(1), _COMPARE[match.group(2)], float(match.group(3))))
    return tuple(found)


@dataclass(frozen=True)
class _Names:
    """What rules may read: fields of a transaction, a team's own attributes, and the served features."""

    features: dict[str, int]
    texts: frozenset[str]
    numbers: frozenset[str]
    flags: frozenset[str]

    @classmethod
    def of(cls, own: Declared) -> _Names:
        kinds = {name: each.kind for name, each in own.attributes.items()}
        return cls(
            {name: place for place, name in enumerate(own.vector)},
            _TEXT_FIELDS.union(name for name, kind in kinds.items() if kind in ("text", "category")),
            _NUMBER_FIELDS.union(name for name, kind in kinds.items() if kind == "number"),
            frozenset(name for name, kind in kinds.items() if kind == "flag"),
        )


class RuleSet:
    """Compiled rules of one file. `version` is the file's digest; `own` is what is declared here."""

    def __init__(self, rules: Sequence[Rule], version: str, own: Declared | None = None) -> None:
        problems: list[str] = []
        compiled = []
        known = _Names.of(own or declared())
        for rule in rules:
            one = _compile(rule, problems, known)
            if one is not None:
                compiled.append(one)
        if problems:
            raise RuleError(problems)
        self.version = version
        self.rules = tuple(rules)
        self._compiled = tuple(compiled)
        names = sorted({name for one in compiled for name in one.variables})
        self._attributes = tuple(
            name
            for name in names
            if name in known.texts | known.numbers | known.flags and name not in _FIELDS
        )
        self._texts = tuple(name for name in names if name in _TEXT_FIELDS)
        self._numbers = tuple(name for name in names if name in _NUMBER_FIELDS)
        self._features = tuple(name for name in names if name in known.features)
        self._columns = np.array([known.features[name] for name in self._features], dtype=np.intp)
        self.errors = 0

    def hits(
        self,
        transaction: Transaction,
        amount_reference: int,
        vector: npt.NDArray[np.float64],
        score: float | None,
        lateness_seconds: float = 0.0,
    ) -> list[Rule]:
        """The rules that hold, in the file's order. A rule that fails to evaluate does not hold.

        `vector` is one served row; `lateness_seconds` is how long after its stated time the transaction was
        received.
        """
        if not self._compiled:
            return []
        values: dict[str, Any] = {"score": score, _LATENESS: lateness_seconds}
        for name in self._texts:
            values[name] = getattr(transaction, name)
        for name in self._numbers:
            values[name] = float(amount_reference) if name == "amount" else getattr(transaction, name)
        if self._attributes:
            given = transaction.attributes or {}
            values |= {name: given.get(name) for name in self._attributes}
        for name, number in zip(self._features, vector[self._columns].tolist(), strict=True):
            values[name] = number if number == number else None
        found = []
        for one in self._compiled:
            if not _possible(one, values):
                continue
            try:
                if one.execute({name: values[name] for name in one.variables}) is True:
                    found.append(one.rule)
            except EXITS:
                raise
            except BaseException:  # noqa: BLE001  # a panic of the library is no Exception
                self.errors += 1
        return found


def _possible(one: _Compiled, values: dict[str, Any]) -> bool:
    for name, holds, bound in one.conditions:
        value = values[name]
        if value is None or not holds(value, bound):
            return False
    return all(values[name] is not None for name in one.needs)


def _compile(rule: Rule, problems: list[str], names: _Names) -> _Compiled | None:
    where = f"line {rule.line}: rule {rule.name}"
    if len(rule.when) > _LONGEST:
        problems.append(f"{where}: when is longer than {_LONGEST} characters")
        return None
    try:
        program = cel.compile(rule.when)
    except ValueError as error:
        reason = str(error).partition("ERROR: ")[2].splitlines()
        problems.append(f"{where}: {reason[0] if reason else 'cannot be parsed'}")
        return None
    known = names.texts | names.numbers | names.flags | names.features.keys() | {"score", _LATENESS}
    unknown = [name for name in program.variables() if name not in known]
    strange = [
        name
        for name in program.functions()
        if re.fullmatch(r"[A-Za-z]\w*", name) and name not in _KNOWN_FUNCTIONS
    ]
    problems.extend(f"{where}: {name} is neither a feature nor a field of the contract" for name in unknown)
    problems.extend(f"{where}: {name}() is not a function that rules may use" for name in strange)
    if unknown or strange:
        return None
    # A rule that tests for null sees missing values; any other is passed over when one is missing.
    needs = () if re.search(r"\bnull\b", rule.when) else tuple(program.variables())
    variables = tuple(program.variables())
    numeric = names.numbers | names.features.keys() | {"score", _LATENESS}
    conditions = tuple(condition for condition in _necessary(rule.when) if condition[0] in numeric)
    compiled = _Compiled(rule, program.execute, variables, needs, conditions)
    # A dry run with plausible values finds type errors now and not at three in the morning.
    sample: dict[str, Any] = dict.fromkeys(names.texts, "x") | dict.fromkeys(
        [*names.numbers, *names.features], 1.0
    )
    sample |= dict.fromkeys(names.flags, True)
    sample |= {"score": 0.5, _LATENESS: 0.5}
    try:
        result = program.execute({name: sample[name] for name in program.variables()})
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        problems.append(f"{where}: {str(error).partition('. ')[0]}")
        return None
    if not isinstance(result, bool):
        problems.append(f"{where}: the condition should be true or false")
        return None
    return compiled


def load_rules(path: Path) -> RuleSet:
    """The rules in a YAML file; raise `RuleError` with every problem and its line, and nothing else."""
    try:
        return _load(path)
    except (RuleError, *EXITS):
        raise
    except BaseException as error:  # noqa: BLE001  # deep YAML, and panics of the CEL library
        raise RuleError([f"{path.name}: cannot be read: {type(error).__name__}"]) from None


def _load(path: Path) -> RuleSet:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise RuleError([f"{path.name}: is larger than {_LARGEST} bytes"])
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise RuleError([f"{path.name}: {error.strerror}"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise RuleError([f"{line}{getattr(error, 'problem', None) or 'is not YAML'}"]) from None
    problems: list[str] = []
    rules: list[Rule] = []
    entries = _entries(document, problems)
    if len(entries) > _MOST:
        raise RuleError([f"{path.name}: holds more than {_MOST} rules"])
    for node in entries:
        rule = _rule(node, problems)
        if rule is not None:
            if any(other.name == rule.name for other in rules):
                problems.append(f"line {rule.line}: rule {rule.name} is there twice")
            rules.append(rule)
    version = hashlib.sha256(text).hexdigest()[:12]
    try:
        ruleset = RuleSet(rules, version)
    except RuleError as error:
        problems.extend(error.problems)
    if problems:
        raise RuleError(problems)
    return ruleset


def _entries(document: yaml.Node | None, problems: list[str]) -> list[yaml.Node]:
    if isinstance(document, yaml.MappingNode) and len(document.value) == 1:
        key, value = document.value[0]
        if key.value == "rules" and isinstance(value, yaml.SequenceNode):
            return list(value.value)
    line = document.start_mark.line + 1 if document is not None else 1
    problems.append(f"line {line}: the file should hold one list named rules")
    return []


def _rule(node: yaml.Node, problems: list[str]) -> Rule | None:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        problems.append(f"line {line}: a rule should have a name, when, action and reason")
        return None
    if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
        problems.append(f"line {line}: the parts of a rule should have names")
        return None
    entry = {key.value: value.value for key, value in node.value if isinstance(value, yaml.ScalarNode)}
    unknown = {key.value for key, _ in node.value} - _KEYS
    found = [f"{name} is not a part of a rule" for name in sorted(unknown)]
    found.extend(f"{name} is missing" for name in ("name", "when", "action", "reason") if not entry.get(name))
    if not found:
        if not _NAME.fullmatch(entry["name"]):
            found.append("name should be small letters, digits and _")
        if entry["action"] not in ACTIONS:
            found.append(f"action should be one of {', '.join(ACTIONS)}")
        if not _REASON.fullmatch(entry["reason"]):
            found.append("reason should be a code in capitals")
    adjust = 0.0
    if (entry.get("action") == "adjust") != ("adjust" in entry):
        found.append("adjust belongs to rules with action adjust, and only to those")
    elif "adjust" in entry:
        try:
            adjust = float(entry["adjust"])
        except ValueError:
            adjust = float("nan")
        if not -1.0 <= adjust <= 1.0:
            found.append("adjust should be a number between -1 and 1")
    if found:
        problems.extend(f"line {line}: {problem}" for problem in found)
        return None
    return Rule(entry["name"], entry["when"], cast("Action", entry["action"]), entry["reason"], adjust, line)
