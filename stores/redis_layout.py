"""Feast's Redis layout as plain bytes: keys, hash fields, values and the newest-wins write.

One hash per entity value holds every view on that join key. A key is Feast's serialized
entity key (version 3) followed by the project; a field is the 4-byte murmur3 of
``view:feature``; a value is a serialized ``feast.types.Value``; ``_ts:view`` is a serialized
``google.protobuf.Timestamp``. Tests hold each function to Feast's own encoder.

A profile's numbers are kept a second time, side by side in one field that Feast does not know
(`row_field`): serving asks for that one instead of two dozen. It names the timestamp that it was
written with, so that values which somebody else wrote since are not missed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from fraud.features.entities import VELOCITY_TTL

_U32: Final = struct.Struct("<I")
_DOUBLE: Final = struct.Struct("<d")
_DOUBLE_TAG: Final = b"\x29"
_INT64_TAG: Final = b"\x20"
_BYTES_TAG: Final = b"\x0a"
_DOUBLE_BYTES: Final = 9
_FLOAT_TAG: Final = b"\x35"
_FLOAT_BYTES: Final = 5
#: int32, int64 and bool.
_INTEGER_TAGS: Final = (b"\x18", b"\x20", b"\x38")
_NULL: Final = struct.pack("<d", float("nan"))


def entity_key(project: str, join_key: str, value: str) -> bytes:
    """The Redis key of the entity whose string join key `join_key` is `value`."""
    name, text = join_key.encode(), value.encode()
    return b"".join(
        (
            b"\x01\0\0\0\x02\0\0\0", _U32.pack(len(name)), name,
            b"\x02\0\0\0", _U32.pack(len(text)), text, project.encode(),
        )
    )  # fmt: skip


@lru_cache(maxsize=4096)
def field(view: str, feature: str) -> bytes:
    """The hash field of one feature."""
    return _U32.pack(_murmur3(f"{view}:{feature}".encode()))


def ts_field(view: str) -> bytes:
    """The hash field of a view's event timestamp."""
    return f"_ts:{view}".encode()


@lru_cache(maxsize=64)
def row_field(view: str, features: tuple[str, ...]) -> bytes:
    """The hash field of a view's numbers side by side; other features, or another order, have another."""
    digest = hashlib.sha256("\n".join(features).encode()).hexdigest()[:8]
    return f"_row:{view}:{digest}".encode()


def encode_row(microseconds: int, values: Sequence[bytes]) -> bytes:
    """Doubles as Feast values, side by side: the view's timestamp (a 64-bit integer) and then each
    number, NaN for null. Empty if a value is no double: serving then reads them one by one."""
    numbers = [
        value[1:] if len(value) == _DOUBLE_BYTES and value[:1] == _DOUBLE_TAG else b"" if value else _NULL
        for value in values
    ]
    row = struct.pack("<q", microseconds) + b"".join(numbers)
    return row if len(row) == 8 + 8 * len(values) else b""


def encode_double(value: float) -> bytes:
    """A double as a Feast value."""
    return _DOUBLE_TAG + _DOUBLE.pack(value)


def encode_int64(value: int) -> bytes:
    """A signed 64-bit integer as a Feast value."""
    return _INT64_TAG + _varint(value & 0xFFFFFFFFFFFFFFFF)


def encode_bytes(value: bytes) -> bytes:
    """Bytes as a Feast value."""
    return _BYTES_TAG + _varint(len(value)) + value


def decode_bytes(value: bytes) -> bytes:
    """The bytes in a Feast value written by `encode_bytes`; ValueError for any other."""
    if value[:1] != _BYTES_TAG:
        raise ValueError("the stored value holds no bytes")
    length, at = _read_varint(value, 1)
    if at + length != len(value):
        raise ValueError("the stored bytes are cut short")
    return value[at:]


def decode_state(value: bytes | None) -> bytes | None:
    """The bytes in a stored value; None if there is none, or it holds something else."""
    try:
        return None if value is None else decode_bytes(value)
    except ValueError:
        return None


def decode_number(value: bytes | None) -> float:
    """The number in a Feast value of any number type, 1.0 for true; NaN for null and for what is none."""
    if not value:
        return float("nan")
    tag = value[:1]
    if tag == _DOUBLE_TAG and len(value) == _DOUBLE_BYTES:
        return float(_DOUBLE.unpack_from(value, 1)[0])
    if tag == _FLOAT_TAG and len(value) == _FLOAT_BYTES:
        return float(struct.unpack_from("<f", value, 1)[0])
    if tag in _INTEGER_TAGS:
        number, end = _read_varint(value, 1)
        if end == len(value):
            return float(number - (1 << 64) if number >> 63 else number)
    return float("nan")


def encode_timestamp(microseconds: int) -> bytes:
    """A time (microseconds since 1970 UTC) as a serialized Timestamp."""
    seconds, rest = divmod(microseconds, 1_000_000)
    encoded = b"\x08" + _varint(seconds) if seconds else b""
    return encoded + b"\x10" + _varint(rest * 1000) if rest else encoded


def decode_timestamp(value: bytes) -> int:
    """Microseconds since 1970 UTC of a serialized Timestamp; ValueError if it is cut short."""
    microseconds = at = 0
    while at < len(value):
        tag = value[at]
        number, at = _read_varint(value, at + 1)
        microseconds += number * 1_000_000 if tag == 0x08 else number // 1000
    return microseconds


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("the stored value is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _murmur3(data: bytes) -> int:
    """MurmurHash3 x86 32-bit, seed 0 (public domain algorithm by Austin Appleby)."""
    mask = 0xFFFFFFFF
    state = 0
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        block = int.from_bytes(data[at : at + 4], "little") * 0xCC9E2D51 & mask
        block = (block << 15 | block >> 17) & mask
        state ^= block * 0x1B873593 & mask
        state = (state << 13 | state >> 19) & mask
        state = (state * 5 + 0xE6546B64) & mask
    if len(data) > whole:
        block = int.from_bytes(data[whole:], "little") * 0xCC9E2D51 & mask
        block = (block << 15 | block >> 17) & mask
        state ^= block * 0x1B873593 & mask
    state ^= len(data)
    state = (state ^ state >> 16) * 0x85EBCA6B & mask
    state = (state ^ state >> 13) * 0xC2B2AE35 & mask
    return state ^ state >> 16


#: An entity's hash is dropped when nothing has been written to it for so long by Redis's clock: by
#: then all of its values are past their ttl.
IDLE_SECONDS: Final = int(VELOCITY_TTL.total_seconds()) + 2 * 86_400

#: Writes rows of one view unless a newer one is stored; an equal version is written again, so
#: that a corrected batch row replaces the one it corrects. The first write of a day of versions
#: postpones the key's expiry to `IDLE_SECONDS` from now. KEYS: one per row. ARGV: the ts
#: field, the number n of features, their n fields, then per row: version (microseconds),
#: serialized timestamp, n values. Returns how many rows were written. Versions are exact up to
#: 2**53 microseconds (the year 2255), as numbers are in Lua.
NEWEST_WINS: Final = """
local byte, floor, call = string.byte, math.floor, redis.call
local day = 86400000000
local ts_field, n = ARGV[1], tonumber(ARGV[2])
local written, at = 0, 3 + n

local function microseconds(stored)
  local known, position = 0, 1
  while position <= #stored do
    local tag, value, scale = byte(stored, position), 0, 1
    position = position + 1
    while true do
      local next = byte(stored, position) or 0
      position = position + 1
      value = value + (next % 128) * scale
      if next < 128 then break end
      scale = scale * 128
    end
    if tag == 8 then known = known + value * 1000000 else known = known + floor(value / 1000) end
  end
  return known
end

for i, key in ipairs(KEYS) do
  local stored, version = redis.pcall('HGET', key, ts_field), tonumber(ARGV[at])
  if type(stored) == 'table' then  -- no hash: somebody else's, which must not hold up the others
    call('DEL', key)
    stored = false
  end
  local newest, known = true, -1
  if stored then
    -- Whole seconds of today take five bytes, and mostly decide.
    local tag, a, b, c, d, e = byte(stored, 1, 6)
    local seconds = -1
    if e and tag == 8 and a > 127 and b > 127 and c > 127 and d > 127 and e < 128 then
      seconds = (a - 128) + (b - 128) * 128 + (c - 128) * 16384 + (d - 128) * 2097152 + e * 268435456
    end
    known = seconds * 1000000
    if seconds < 0 or version < known + 1000000 then
      known = microseconds(stored)
      newest = version >= known
    end
  end
  if newest then
    if n == 1 then
      call('HSET', key, ts_field, ARGV[at + 1], ARGV[3], ARGV[at + 2])
    else
      local row = {'HSET', key, ts_field, ARGV[at + 1]}
      for f = 1, n do
        row[3 + 2 * f] = ARGV[2 + f]
        row[4 + 2 * f] = ARGV[at + 1 + f]
      end
      call(unpack(row))
    end
    if floor(version / day) > floor(known / day) then call('EXPIRE', key, IDLE_SECONDS) end
    written = written + 1
  end
  at = at + 2 + n
end
return written
""".replace("IDLE_SECONDS", str(IDLE_SECONDS))


def newest_wins_args(
    view: str,
    features: Sequence[str],
    rows: Sequence[tuple[int, Sequence[bytes]]],
    side_by_side: tuple[str, ...] = (),
) -> list[bytes | str | int]:
    """ARGV of `NEWEST_WINS` for rows of (version in microseconds, encoded values). The features named in
    `side_by_side` are written in `row_field` as well."""
    fields = [field(view, feature) for feature in features]
    places = [features.index(feature) for feature in side_by_side]
    if places:
        # First, as serving looks for it: a small hash is a list, which Redis searches from its head.
        fields.insert(0, row_field(view, side_by_side))
    args: list[bytes | str | int] = [ts_field(view), len(fields), *fields]
    for version, values in rows:
        args.append(version)
        args.append(encode_timestamp(version))
        if places:
            args.append(encode_row(version, [values[place] for place in places]))
        args.extend(values)
    return args
