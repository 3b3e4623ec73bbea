"""What stands in Redis under a transaction id: a claim while a worker decides it, then the answer.

A claim is a `SET NX` that expires by itself (a lease), so that a worker which dies keeps an id for
seconds only. The answer takes its place for a day (an idempotency record).

    marker A or C │ signature, 20 bytes │ digest of the request, 16 │ answer's JSON, or claim's nonce

The signature covers all of it and the key that it stands under: whoever writes to Redis can neither
make an answer up nor move one to another id. What does not verify is no value at all.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bentos.wire.redis_connection import pack
from stores.keys import SIGNATURE_BYTES, Seal

#: An answer is repeated for this long.
REMEMBERED_SECONDS: Final = 86_400
#: A claim that its worker never finished (it died) is forgotten after this long.
_CLAIM_MILLISECONDS: Final = b"3000"
#: First byte of a value: an answer, or a claim.
ANSWER: Final = b"A"
_CLAIM: Final = b"C"
_DIGEST_BYTES: Final = 16
_DIGEST_FROM: Final = 1 + SIGNATURE_BYTES
_REST_FROM: Final = _DIGEST_FROM + _DIGEST_BYTES

#: KEYS: an id's key. ARGV: what is there and does not verify ('' for what is no string), and a claim to put
#: in its place. Of workers that come upon the same value one gets 1, the others 0.
_TAKE_OVER: Final = b"""
local there = redis.pcall('GET', KEYS[1])
if type(there) == 'table' then there = '' end
if there ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', 3000)
return 1
"""


class Stored(NamedTuple):
    """A value that verifies: an answer or a claim, the request's digest, the answer's JSON or the nonce."""

    answered: bool
    digest: bytes
    rest: bytes


def answer_key(project: str, transaction_id: str) -> bytes:
    """The Redis key under which the answer to a transaction is remembered."""
    return f"tollgate:answer:{project}:{transaction_id}".encode()


def answer_value(seal: Seal, key: bytes, digest: bytes, answer: bytes) -> bytes:
    """A remembered answer under `key`: to the request of `digest`, as JSON."""
    return _value(seal, ANSWER, key, digest + answer)


def claim_value(seal: Seal, key: bytes, digest: bytes, nonce: bytes) -> bytes:
    """The claim under `key` of the worker that has `nonce`, for the request of `digest`."""
    return _value(seal, _CLAIM, key, digest + nonce)


def _value(seal: Seal, marker: bytes, key: bytes, content: bytes) -> bytes:
    return marker + seal.sign(b"%b%d:%b%b" % (marker, len(key), key, content)) + content


def read_value(seal: Seal, key: bytes, value: bytes) -> Stored | None:
    """What stands under `key`; None when no key in force signed it for there."""
    marker, signature, content = value[:1], value[1:_DIGEST_FROM], value[_DIGEST_FROM:]
    if len(content) < _DIGEST_BYTES or not seal.verifies(
        b"%b%d:%b%b" % (marker, len(key), key, content), signature
    ):
        return None
    return Stored(marker == ANSWER, content[:_DIGEST_BYTES], value[_REST_FROM:])


def claim_command(key: bytes, value: bytes) -> bytes:
    """Claim `key` unless somebody has."""
    return pack(b"SET", key, value, b"NX", b"PX", _CLAIM_MILLISECONDS)


def take_over_command(key: bytes, planted: bytes, value: bytes) -> bytes:
    """Put a claim in the place of what does not verify, unless that has changed since."""
    return pack(b"EVAL", _TAKE_OVER, b"1", key, planted, value)
