"""The mark of a request that the edge has let in, which BentoML's typed methods ask for.

The edge is the only way in. Should another one be found (a route of BentoML's that the edge does not
know for what it is), the typed methods refuse it. The mark is a context variable: only the edge sets it,
and takes it away at the start of every request, since a connection may inherit an earlier one's context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from typing import Final

from bentoml.exceptions import BentoMLException

from bentos.base.caller import Caller

_ADMITTED: Final[ContextVar[Caller | None]] = ContextVar("tollgate_admitted", default=None)


@contextmanager
def admitted(caller: Caller | None) -> Iterator[None]:
    """What runs inside was let in for `caller`, or (None) was not, whatever was before."""
    token = _ADMITTED.set(caller)
    try:
        yield
    finally:
        _ADMITTED.reset(token)


def require_admitted() -> Caller:
    """Whom the edge has let in; raise BentoML's 403 for a call that did not come through it."""
    caller = _ADMITTED.get()
    if caller is None:
        raise BentoMLException("not admitted", error_code=HTTPStatus.FORBIDDEN)
    return caller
