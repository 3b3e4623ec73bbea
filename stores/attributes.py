"""A transaction's own attributes as text: what the lake and the decision log keep."""

from __future__ import annotations

from typing import Final

import msgspec

from fraud.contract.attributes import Attributes

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Attributes).decode


def attributes_text(attributes: Attributes | None) -> str | None:
    """Canonical JSON, or None where there are none."""
    return _encode(attributes).decode() if attributes else None


def attributes_of(text: str | None) -> Attributes | None:
    """The attributes that `attributes_text` wrote."""
    return None if text is None else _decode(text)
