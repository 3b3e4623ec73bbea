"""Keyed tokens in place of card numbers: the same key gives the same token here and in the importer."""

from __future__ import annotations

from hashlib import blake2b


def token(value: str, key: bytes) -> str:
    """The token of `value` under `key` (32 bytes): ``tok_`` and 32 hexadecimal digits.

    Keyed BLAKE2b (RFC 7693) of the value without blanks and dashes. The key is the bytes whose hexadecimal
    digits stand in the file that `TOLLGATE_TOKEN_KEY_FILE` names.
    """
    plain = value.replace(" ", "").replace("-", "")
    return "tok_" + blake2b(plain.encode(), key=key, person=b"tollgate token", digest_size=16).hexdigest()
