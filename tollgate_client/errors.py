"""What a call raises, by what the caller should do about it."""

from __future__ import annotations


class TollgateError(Exception):
    """A call without an answer to act on: apply your own default to the payment."""


class Refused(TollgateError):
    """The request is wrong (4xx): sending it again does not help.

    `field` names what is wrong and `reason` says how it should be, without the value itself.
    """

    def __init__(self, status: int, field: str, reason: str) -> None:
        super().__init__(f"{status}: {field}: {reason}")
        self.status = status
        self.field = field
        self.reason = reason


class Conflict(Refused):
    """Another payment was decided under this transaction id (409): a new payment needs a new id."""


class NotAllowed(Refused):
    """The token is missing, unknown or lacks the scope (401, 403): somebody has to look at once."""


class Unavailable(TollgateError):
    """No answer within the deadline, after `attempts` attempts; `last` says what the last one met."""

    def __init__(self, attempts: int, last: str) -> None:
        super().__init__(f"no answer after {attempts} attempt{'s' if attempts != 1 else ''}: {last}")
        self.attempts = attempts
        self.last = last
