"""Expressions over one event's fields and features, in the rules' own language (CEL, https://cel.dev).

CEL is not Turing-complete and reaches nothing but its variables: a declared expression cannot run code, loop
for ever or read a file. Numbers are doubles, amounts reference cents, so constants are written `200.0`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from math import isfinite, nan
from typing import Any, Final

import cel

FUNCTIONS: Final = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "double", "int", "string"}
)
_ERRORS: Final = (TypeError, ValueError, RuntimeError, ArithmeticError)


class ExpressionError(ValueError):
    """An expression that cannot be used; the text says what it should be."""


class Expression:
    """A compiled expression. It is null wherever one of its variables is, unless it tests for null itself."""

    __slots__ = ("_execute", "_needs", "failures", "variables")

    def __init__(self, text: str) -> None:
        try:
            program = cel.compile(text)
        except ValueError as error:
            reason = str(error).partition("ERROR: ")[2].splitlines()
            raise ExpressionError(reason[0] if reason else "cannot be parsed") from None
        strange = [name for name in program.functions() if re.fullmatch(r"[A-Za-z]\w*", name)]
        for name in strange:
            if name not in FUNCTIONS:
                raise ExpressionError(f"{name}() is no function; there are {', '.join(sorted(FUNCTIONS))}")
        self._execute = program.execute
        self.variables: tuple[str, ...] = tuple(program.variables())
        self._needs = () if re.search(r"\bnull\b", text) else self.variables
        #: How often evaluating failed, such as a text compared with a number.
        self.failures = 0

    def check(self, numbers: Collection[str], texts: Collection[str], flags: Collection[str] = ()) -> type:
        """The type of what it gives (bool, float or str); ExpressionError for a variable that is none of
        these, and for types that do not go together."""
        for name in self.variables:
            if name not in numbers and name not in texts and name not in flags:
                raise ExpressionError(f"{name} is neither a field, an attribute nor a feature")
        sample = {name: True if name in flags else 1.0 if name in numbers else "x" for name in self.variables}
        try:
            found = self._execute(sample)
        except _ERRORS as error:
            raise ExpressionError(f"{str(error).partition('. ')[0]} (write numbers as 200.0)") from None
        return bool if isinstance(found, bool) else str if isinstance(found, str) else float

    def of(self, values: Mapping[str, Any]) -> Any:
        """Its value: a bool, a finite float, a text, or None. A failure is None, and counted."""
        for name in self._needs:
            if values.get(name) is None:
                return None
        try:
            found = self._execute({name: values.get(name) for name in self.variables})
        except _ERRORS:
            self.failures += 1
            return None
        if isinstance(found, bool | str) or found is None:
            return found
        number = float(found)
        return number if isfinite(number) else None


@lru_cache(maxsize=256)
def _compiled(text: str) -> Expression:
    return Expression(text)


def column_of(name: str, text: str, inputs: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
    """The body of a declared expression's on-demand view: lists of inputs in, its one list out, NaN for
    null: Feast takes no column of nothing but nulls."""
    expression = _compiled(text)
    rows = max(map(len, inputs.values()), default=0)
    nothing = [None] * rows
    columns = [inputs.get(variable, nothing) for variable in expression.variables]
    found: list[float] = []
    for row in range(rows):
        values = dict(zip(expression.variables, [_plain(column[row]) for column in columns], strict=True))
        value = expression.of(values)
        found.append(float(value) if isinstance(value, bool | int | float) else nan)
    return {name: found}


def codes_of(
    name: str, feature: str, codes: Mapping[str, float], inputs: Mapping[str, Sequence[Any]]
) -> dict[str, list[float]]:
    """The body of an attribute's on-demand view: a category's number, a number itself, 1.0 for true."""
    return {
        feature: [
            codes.get(value, nan) if codes else float(value) if isinstance(value, bool | int | float) else nan
            for value in inputs[name]
        ]
    }


def _plain(value: Any) -> Any:
    """A value as expressions take it: whole numbers as doubles, NaN as null."""
    if isinstance(value, bool | str) or value is None:
        return value
    number = float(value)
    return number if isfinite(number) else None
