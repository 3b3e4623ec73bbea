"""What stands in Redis under a transaction id: a claim while a worker decides it, then the answer.

A claim is a `SET NX` that expires by itself (a lease), so that a worker which dies keeps an id for
seconds only. The answer takes its place for a day (an idempotency record).
"""

from __future__ import annotations

from typing import Final

from bentos.wire.redis_connection import pack

#: An answer is repeated for this long.
REMEMBERED_SECONDS: Final = 86_400
#: A claim that its worker never finished (it died) is forgotten after this long.
_CLAIM_MILLISECONDS: Final = b"3000"
#: First byte of a value: an answer, or a claim.
ANSWER: Final = b"A"
_CLAIM: Final = b"C"


def answer_key(project: str, transaction_id: str) -> bytes:
    """The Redis key under which the answer to a transaction is remembered."""
    return f"tollgate:answer:{project}:{transaction_id}".encode()


def answer_value(digest: bytes, answer: bytes) -> bytes:
    """A remembered answer: marker, 16-byte digest of the request, the answer's JSON."""
    return ANSWER + digest + answer


def claim_value(digest: bytes, nonce: bytes) -> bytes:
    return _CLAIM + digest + nonce


def claim_command(key: bytes, value: bytes) -> bytes:
    """Claim `key` unless somebody has."""
    return pack(b"SET", key, value, b"NX", b"PX", _CLAIM_MILLISECONDS)


def split_value(value: bytes) -> tuple[bool, bytes, bytes]:
    """Whether the value is an answer, the request's digest, and the answer (or the nonce)."""
    return value[:1] == ANSWER, value[1:17], value[17:]
