"""A circuit breaker: after repeated failures stop asking, then probe, then trust again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

State = Literal["closed", "open", "half_open"]
STATES: Final[tuple[State, ...]] = ("closed", "half_open", "open")


class CircuitBreaker:
    """Closed: everything passes. Open: nothing does, for `pause` seconds. Half-open: one probe.

    It opens after `failures` failures in a row, closes at the first success, and doubles the
    pause after every failed probe up to `longest`. Seconds are of the monotonic clock.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        pause: float = 0.25,
        longest: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures = failures
        self._first_pause = pause
        self._longest = longest
        self._clock = clock
        self._in_a_row = 0
        self._pause = pause
        self._until = 0.0
        self.state: State = "closed"

    def allows(self) -> bool:
        """Whether the next call may be tried. In half-open one caller hears True until it reports."""
        if self.state == "closed":
            return True
        if self._clock() >= self._until:
            # Either the pause is over, or a probe never reported: let one more try.
            self.state = "half_open"
            self._until = self._clock() + self._pause
            return True
        return False

    def succeeded(self) -> None:
        self._in_a_row = 0
        if self.state != "closed":
            self.state = "closed"
            self._pause = self._first_pause

    def failed(self) -> None:
        self._in_a_row += 1
        if self.state == "half_open":
            self._pause = min(self._pause * 2, self._longest)
        elif self.state == "open" or self._in_a_row < self._failures:
            return
        self.state = "open"
        self._until = self._clock() + self._pause
