"""Errors as answers: a status, and JSON that names the field and says what it should be.

Nothing of the input is ever repeated, and no stack trace leaves the service.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from fraud.contract.transaction import ContractError

_encode = msgspec.json.Encoder().encode


class Problem(Exception):
    """A refusal: HTTP `status`, the `field` it is about and the `reason`.

    `kind` is the label under which `http_refused_total` counts it: set for what is refused at the door,
    whoever asks and whatever the body says.
    """

    def __init__(
        self, status: int, field: str, reason: str, *, retry_after: int | None = None, kind: str | None = None
    ) -> None:
        super().__init__(f"{status} {field}: {reason}")
        self.status = status
        self.field = field
        self.reason = reason
        self.retry_after = retry_after
        self.kind = kind

    def json(self) -> bytes:
        return _json(self.field, self.reason)


def refused(error: ContractError) -> Problem:
    """The answer to an input that breaks the contract: 400 broken JSON, 413 too large, else 422."""
    if error.field == "(body)":
        if error.reason.startswith("larger than"):
            return Problem(413, error.field, error.reason)
        if error.reason.startswith("is not valid JSON"):
            return Problem(400, error.field, error.reason)
    return Problem(422, error.field, error.reason)


@lru_cache(maxsize=256)
def _json(field: str, reason: str) -> bytes:
    """In a surge most requests get the same refusal."""
    return _encode({"error": {"field": field, "reason": reason}})
