"""Keyed tokens for what must not stand in the open, such as card numbers: the same key, the same token.

The key is a file of 64 hexadecimal digits (`TOLLGATE_TOKEN_KEY_FILE`; made on first use in the home folder
without it). Who calls the scoring API makes the same tokens with `tollgate_client.token(value, key)`.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pyarrow as pa

from stores.settings import settings
from tollgate_client.tokens import token


class TokenKeyError(ValueError):
    """A key file that cannot be used; the text says what to do."""


def read_key(path: Path | None = None) -> bytes:
    """The key for tokens; a first use without a file that is named makes one that its user alone may read."""
    named = path or settings().contract.token_key_file
    path = named or settings().home / "token.key"
    if named is None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32) + "\n")
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError):
        raise TokenKeyError(f"{path}: should hold a key of 64 hexadecimal digits") from None
    if len(key) != 32:
        raise TokenKeyError(f"{path}: should hold a key of 64 hexadecimal digits")
    return key


def token_column(values: pa.Array, key: bytes) -> pa.Array:
    """The tokens of a text column, each distinct value once."""
    codes = values.dictionary_encode()
    made = [token(value, key) for value in codes.dictionary.to_pylist()]
    return pa.array(made, pa.string()).take(codes.indices)
