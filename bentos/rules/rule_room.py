"""The rules in force: reloaded when their file changes, kept when the new file is broken."""

from __future__ import annotations

import logging
from pathlib import Path

from bentos.rules.ruleset import DEFAULT_RULES, RuleError, RuleSet, load_rules
from fraud.decision.rules import DeclineBreaker
from stores.files import Mark, mark

_log = logging.getLogger("tollgate.rules")


class RuleRoom:
    """`current` is never without a rule set: no rules at all if none could ever be loaded."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or DEFAULT_RULES
        self._seen: Mark = None
        self.current = RuleSet((), "none")
        self.breaker = DeclineBreaker()
        self.error: str | None = None

    def refresh(self) -> None:
        """Load the file if it changed since the last look."""
        seen = mark(self._path)
        if seen is not None and seen == self._seen:
            return
        self._seen = seen
        try:
            fresh = load_rules(self._path)
        except RuleError as error:
            self._refuse(str(error))
            return
        self.error = None
        self.current = fresh
        self.breaker = DeclineBreaker()
        _log.info("rules in force", extra={"version": fresh.version, "rules": len(fresh.rules)})

    def _refuse(self, reason: str) -> None:
        if reason != self.error:
            _log.error("a rule file was refused, the rules before stay", extra={"reason": reason})
        self.error = reason
