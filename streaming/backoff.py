"""Waiting for something that is away: bounded, jittered, and over when the flow is stopping."""

from __future__ import annotations

import random
import threading
import time

_FIRST_S = 0.02
_LONGEST_S = 2.0
#: What is left of the patience once the flow has been asked to stop.
_STOPPING_S = 5.0


class Backoff:
    """Delays that double from 20 ms to 2 s with full jitter, for at most `patience_s` in all.

    `next_delay` raises `TimeoutError` once patience is used up; `reset` starts over.
    """

    def __init__(self, patience_s: float, what: str) -> None:
        self._patience = patience_s
        self._what = what
        self._delay = _FIRST_S
        self._since: float | None = None

    @property
    def waiting(self) -> bool:
        return self._since is not None

    def next_delay(self) -> float:
        """Seconds to wait before the next try."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since > self._patience:
            raise TimeoutError(
                f"{self._what} has been away for {self._patience:.0f} s; the flow ends here and "
                "resumes from its last snapshot when started again "
                "(TOLLGATE_STREAM_PATIENCE_SECONDS sets the wait)"
            )
        delay = self._delay
        self._delay = min(_LONGEST_S, 2 * delay)
        return delay * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        self._delay = _FIRST_S
        self._since = None

    def wait(self, stopping: threading.Event) -> None:
        """Sleep for the next delay; once `stopping` is set, five seconds of patience are left."""
        if stopping.is_set():
            self._patience = min(self._patience, _STOPPING_S)
            time.sleep(self.next_delay())
        else:
            stopping.wait(self.next_delay())
