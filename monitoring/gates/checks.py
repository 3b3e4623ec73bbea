"""What a check is, and what a gate answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Severity = Literal["block", "warn"]

#: Names of what can be wrong, as operators say them.
Fault = Literal[
    "no data", "truncated file", "wrong columns", "nulls", "duplicates", "impossible values", "shifted units",
    "wrong time zone", "missing hours", "future events", "card numbers", "row count", "missing optional fields",
    "wrong partition", "unreadable state", "broken chain", "degraded answers", "one class only", "leak",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation: which fault it finds, whether it blocks, and what to do when it fails.

    `expectation` is the name of a Great Expectations class, `arguments` its arguments. A check
    runs over the rows, or with `facts` over the one-row table of facts about the whole batch.
    """

    fault: Fault
    expectation: str
    arguments: Mapping[str, Any]
    cure: str
    severity: Severity = "block"
    facts: bool = False

    @property
    def column(self) -> str:
        """The column, or the columns, that the check looks at."""
        one = self.arguments.get("column")
        return str(one) if one is not None else ", ".join(self.arguments.get("column_list", ()))


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed check. `rows` is how many rows broke it (None for a fact about the whole batch)."""

    fault: Fault
    severity: Severity
    what: str
    rows: int | None
    share: float | None
    examples: tuple[str, ...]
    cure: str

    def text(self) -> str:
        """For people, without personal data."""
        count = "" if self.rows is None else f" in {self.rows:,} rows ({self.share or 0:.2%})"
        shown = f"\n      for example {', '.join(self.examples)}" if self.examples else ""
        word = "BLOCKED" if self.severity == "block" else "warning"
        return f"  {word}: {self.fault}: {self.what}{count}{shown}\n      to do: {self.cure}"


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate found in one batch."""

    gate: str
    subject: str
    rows: int
    seconds: float
    failures: tuple[Failure, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: int = 0
    docs: Path | None = None

    @property
    def blocked(self) -> bool:
        return any(failure.severity == "block" for failure in self.failures)

    def text(self) -> str:
        """A few lines for a terminal."""
        state = "BLOCKED" if self.blocked else "passed"
        head = f"gate {self.gate} {self.subject}: {state}, {self.rows:,} rows, {self.checks} checks, {self.seconds:.1f} s"
        lines = [head, *(failure.text() for failure in self.failures)]
        if self.docs is not None:
            lines.append(f"  data docs: {self.docs}")
        return "\n".join(lines)

    def raise_if_blocked(self) -> None:
        """Raise `GateBlockedError` with the text if a blocker failed."""
        if self.blocked:
            raise GateBlockedError(self.text())


class GateBlockedError(RuntimeError):
    """Data that must not go further; the text says what is wrong with it and what to do."""
