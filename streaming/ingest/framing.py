"""What stands in real topics in place of a transaction's JSON: said in the reason, or taken off.

A schema registry's serializers put a zero and the schema's number in four bytes before the record. Of JSON
that header is taken off; of Avro and Protobuf the reason says so. A change-data envelope and a tombstone (a
record without a value) are told from broken events.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fraud.contract.transaction import ContractError

_HEADER: Final = 5
_WHITE: Final = b" \t\r\n"
_FIELD: Final = "(record)"


class _Envelope(msgspec.Struct):
    op: str
    before: msgspec.Raw = msgspec.Raw()
    after: msgspec.Raw = msgspec.Raw()


_decode: Final = msgspec.json.Decoder(_Envelope).decode


def json_inside(payload: bytes) -> bytes | None:
    """The JSON behind a schema registry's header, or None where there is no such thing."""
    rest = payload[_HEADER:]
    return rest if payload[:1] == b"\0" and rest.lstrip(_WHITE)[:1] == b"{" else None


def better_reason(payload: bytes, refusal: ContractError) -> ContractError:
    """`refusal`, or what is the matter with the whole record, where that can be told."""
    if payload[:1] == b"\0" and len(payload) > _HEADER:
        number = int.from_bytes(payload[1:_HEADER], "big")
        return ContractError(
            _FIELD, f"has a schema registry's header (schema {number}) and is not JSON: produce JSON"
        )
    try:
        envelope = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return refusal
    if not envelope.after and not envelope.before:
        return refusal
    return ContractError(_FIELD, "is a change-data envelope: send what stands in its `after`")
