"""Buckets of older events: merged while they stay small beside everything newer.

A bucket keeps the newest and oldest time of its events, their count, sum and sum of squares.
A window's edge may fall inside one; readers then count half of it. Neighbours are merged only
as long as that half is at most `ERROR` of the count, and of the sum, of all newer events (the
idea of exponential histograms: Datar, Gionis, Indyk, Motwani, "Maintaining Stream Statistics
over Sliding Windows", SIAM J. Computing 31(6), 2002; merging on the measure itself follows
smooth histograms: Braverman and Ostrovsky, FOCS 2007).

Packed buckets are a base time in 8 bytes (nothing at all if there is no bucket), then 24 bytes
each, little-endian: oldest and newest time as unsigned 32-bit milliseconds after the base,
count << 44 | sum as a 64-bit integer, squares as a double.
"""

from __future__ import annotations

import struct
from typing import Final

ERROR: Final = 0.02
MAX_BUCKETS: Final = 480
BASE_BYTES: Final = 8
BUCKET_BYTES: Final = 24
SUM_BITS: Final = 44
SUM_MASK: Final = (1 << SUM_BITS) - 1
#: Times are at most this far after the base, so that a span is a positive 64-bit integer.
FARTHEST_MS: Final = (1 << 31) - 1
#: Merging stops here, so that count and sum fit their bits.
_MOST_COUNT: Final = (1 << 63 - SUM_BITS) - 1
_MOST_SLACK: Final = 1e6
_LATER: Final = 1 << 62

_PACKED: Final = struct.Struct("<IIqd")
_FRONT_NEWEST: Final = slice(BASE_BYTES + 4, BASE_BYTES + 8)

#: Newest time, oldest time, count, sum, sum of squares.
Bucket = tuple[int, int, int, int, float]


def single(time: int, amount: int) -> Bucket:
    """The bucket of one event."""
    return time, time, 1, amount, float(amount * amount)


def pack_single(base: int, time: int, amount: int) -> bytes:
    """The packed bucket of one event."""
    return _PACKED.pack(time - base, time - base, 1 << SUM_BITS | amount, float(amount * amount))


def pack(buckets: list[Bucket]) -> bytearray:
    """Packed buckets, with times counted from the oldest."""
    packed = bytearray()
    if buckets:
        base = min([bucket[1] for bucket in buckets])
        packed += pack_base(base)
        for newest, oldest, count, total, squares in buckets:
            packed += _PACKED.pack(oldest - base, newest - base, count << SUM_BITS | total, squares)
    return packed


def pack_base(base: int) -> bytes:
    """What stands before the first packed bucket."""
    return base.to_bytes(BASE_BYTES, "little", signed=True)


def base_of(packed: bytes | bytearray) -> int:
    """The time that times of these packed buckets are counted from."""
    return int.from_bytes(packed[:BASE_BYTES], "little", signed=True)


def packed_size(count: int) -> int:
    """Bytes of so many packed buckets."""
    return BASE_BYTES + BUCKET_BYTES * count if count else 0


def unpack(packed: bytes | bytearray) -> list[Bucket]:
    """The buckets that `pack` packed."""
    base = base_of(packed)
    return [
        (base + newest, base + oldest, load >> SUM_BITS, load & SUM_MASK, squares)
        for oldest, newest, load, squares in _PACKED.iter_unpack(memoryview(packed)[BASE_BYTES:])
    ]


def describe(packed: bytes | bytearray) -> list[dict[str, float]]:
    """The buckets with their figures named."""
    names = ("newest_ms", "oldest_ms", "count", "sum", "squares")
    return [dict(zip(names, bucket, strict=True)) for bucket in unpack(packed)]


def forget(packed: bytearray, oldest: int) -> None:
    """Drop leading buckets that ended at `oldest` or before."""
    base = base_of(packed)
    while packed and base + int.from_bytes(packed[_FRONT_NEWEST], "little") <= oldest:
        del packed[BASE_BYTES : BASE_BYTES + BUCKET_BYTES]
        if len(packed) == BASE_BYTES:
            packed.clear()


def change(packed: bytearray, time: int, before: int, after: int) -> bool:
    """Let an event of `time` count `after` where it counted `before`; False if no bucket holds that time,
    or none as much."""
    base = base_of(packed) if packed else 0
    for at in range(BASE_BYTES, len(packed), BUCKET_BYTES):
        oldest, newest, load, squares = _PACKED.unpack_from(packed, at)
        total = load & SUM_MASK
        if base + oldest <= time <= base + newest and total >= before and total - before + after <= SUM_MASK:
            squares = max(0.0, squares + float(after * after - before * before))
            _PACKED.pack_into(packed, at, oldest, newest, load + after - before, squares)
            return True
    return False


def compress(buckets: list[Bucket], newer_count: int, newer_sum: int) -> list[Bucket]:
    """Merge neighbours where the error allows it; oldest first, at most `MAX_BUCKETS`.

    `newer_count` and `newer_sum` are what every reader counts before any bucket. Where the
    error leaves too many buckets, it grows by a quarter until it does not; if nothing helps,
    the oldest are lost.
    """
    buckets = sorted(buckets, reverse=True)
    slack = 2 * ERROR
    merged = _merge(buckets, newer_count, newer_sum, slack)
    while len(merged) > MAX_BUCKETS and slack < _MOST_SLACK:
        slack *= 1.25
        merged = _merge(buckets, newer_count, newer_sum, slack)
    del merged[MAX_BUCKETS:]
    merged.reverse()
    return merged


def _merge(buckets: list[Bucket], newer_count: int, newer_sum: int, slack: float) -> list[Bucket]:
    merged: list[Bucket] = []
    border = _LATER  # oldest time of the buckets already closed
    newest = oldest = _LATER
    count = total = 0
    squares = 0.0
    count_room = sum_room = -1.0
    for bucket in buckets:
        # Events of one moment are never parted by an edge, and may always merge.
        if (count + bucket[2] <= count_room and total + bucket[3] <= sum_room) or (
            newest == oldest == bucket[0] == bucket[1]
            and count + bucket[2] <= _MOST_COUNT
            and total + bucket[3] <= SUM_MASK
        ):
            if bucket[1] < oldest:
                oldest = bucket[1]
            count += bucket[2]
            total += bucket[3]
            squares += bucket[4]
            continue
        if count:
            merged.append((newest, oldest, count, total, squares))
            newer_count += count
            newer_sum += total
            if oldest < border:
                border = oldest
        newest, oldest, count, total, squares = bucket
        if newest > border:  # a late event inside a closed bucket: it may not span an edge too
            count_room = -1.0
        else:
            count_room = min(slack * newer_count, _MOST_COUNT)
            sum_room = min(slack * newer_sum, SUM_MASK)
    if count:
        merged.append((newest, oldest, count, total, squares))
    return merged
