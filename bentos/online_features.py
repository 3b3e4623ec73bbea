"""Online features: Feast's rows for a whole batch of transactions in one Redis round trip.

A plan says which hash fields each entity's key is asked for; it is resolved once (from the
feature tables, or from Feast's registry by `bentos.feature_plan`). A batch is then one HMGET per
entity that each transaction names, all in one pipelined write. Values are Feast's own bytes,
decoded a block at a time: a profile value is always a double (tag byte and eight bytes), a
velocity state is bytes. Freshness is judged by each view's stored timestamp against the
*transaction's event time*, never against the wall clock; a value past its ttl is served as
null, exactly as a point-in-time join would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from fraud.answer import FeatureStatus
from fraud.contract import Transaction
from fraud.entities import ENTITIES, PROFILE_TTL, VELOCITY_TTL
from fraud.features import PROFILE_INPUTS, SERVED_PROFILES
from fraud.redis_layout import decode_bytes, entity_key, field, ts_field

Floats = npt.NDArray[np.float64]

_NULL_DOUBLE: Final = b"\x29" + np.float64("nan").tobytes()
_DOUBLE_SIZE: Final = len(_NULL_DOUBLE)
_DOUBLE_TAG: Final = b"\x29"
_TAGGED: Final = np.dtype([("tag", "u1"), ("number", "<f8")])


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """One Feast view: its name, its features in order, and how old (microseconds) it may be."""

    name: str
    features: tuple[str, ...]
    ttl_us: int


@dataclass(frozen=True, slots=True)
class EntityPlan:
    """What one entity's hash is asked for. `velocity` holds exactly one feature, the state."""

    name: str
    key: str
    profile: ViewPlan
    velocity: ViewPlan


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """A FeatureService as Redis keys and fields: one `EntityPlan` per entity, in ENTITIES order."""

    project: str
    entities: tuple[EntityPlan, ...]


def table_plan(project: str) -> FeaturePlan:
    """The plan that the feature tables define; the registry's must be equal to it."""
    profile_ttl = int(PROFILE_TTL.total_seconds()) * 1_000_000
    velocity_ttl = int(VELOCITY_TTL.total_seconds()) * 1_000_000
    entities = []
    for entity in ENTITIES:
        names = SERVED_PROFILES[entity.name]
        entities.append(
            EntityPlan(
                name=entity.name,
                key=entity.key,
                profile=ViewPlan(entity.profile_view, names, profile_ttl),
                velocity=ViewPlan(entity.velocity_view, (entity.state_feature,), velocity_ttl),
            )
        )
    return FeaturePlan(project, tuple(entities))


@dataclass(slots=True)
class OnlineRows:
    """What a batch read brought, one row per transaction.

    `states` holds per entity (ENTITIES order) the packed states, None where there is none to
    use; `profiles` is rows x profile features in the vector's order, NaN where null, and
    `inputs` those of its columns that request-time features read. `status` and `timestamps`
    (microseconds since 1970 UTC, as stored) are per row and view. `unanswered` counts the reads
    that got no reply, or an error for one.
    """

    states: list[list[bytes | None]]
    profiles: Floats
    inputs: Floats
    status: list[dict[str, FeatureStatus]]
    timestamps: list[dict[str, int]]
    unanswered: int = 0

    def take(self, rows: Sequence[int]) -> OnlineRows:
        """Only these rows."""
        chosen = list(rows)
        return OnlineRows(
            [[column[row] for row in chosen] for column in self.states],
            self.profiles[chosen],
            self.inputs[chosen],
            [self.status[row] for row in chosen],
            [self.timestamps[row] for row in chosen],
            self.unanswered,
        )


class _EntityReader:
    """Requests and replies of one entity."""

    __slots__ = (
        "_head",
        "_key_fixed",
        "_prefix",
        "_suffix",
        "_tail",
        "features",
        "key",
        "nulls",
        "profile",
        "velocity",
        "width",
    )

    def __init__(self, project: str, plan: EntityPlan) -> None:
        self.profile, self.velocity = plan.profile, plan.velocity
        self.key = plan.key
        self.features = plan.profile.features
        self.width = len(self.features)
        self.nulls: list[bytes | None] = [_NULL_DOUBLE] * self.width
        names = [field(plan.profile.name, feature) for feature in self.features]
        names += [ts_field(plan.profile.name), ts_field(plan.velocity.name)]
        names.append(field(plan.velocity.name, plan.velocity.features[0]))
        # An entity key is: prefix, length of the value, the value, the project.
        empty = entity_key(project, plan.key, "")
        self._tail = project.encode()
        self._prefix = empty[: len(empty) - len(self._tail) - 4]
        self._key_fixed = len(empty)
        self._head = b"*%d\r\n$5\r\nHMGET\r\n$" % (2 + len(names))
        self._suffix = self._tail + b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(name), name) for name in names)

    def command(self, value: str) -> bytes:
        """The packed HMGET for the entity value `value`."""
        text = value.encode()
        size = len(text)
        return b"%b%d\r\n%b%b%b%b" % (
            self._head, self._key_fixed + size, self._prefix, size.to_bytes(4, "little"), text, self._suffix,
        )  # fmt: skip

    def redis_key(self, value: str) -> bytes:
        text = value.encode()
        return self._prefix + len(text).to_bytes(4, "little") + text + self._tail


class OnlineFeatures:
    """Builds the commands of a batch and turns their replies into rows."""

    def __init__(self, plan: FeaturePlan) -> None:
        self.plan = plan
        self._readers = [_EntityReader(plan.project, entity) for entity in plan.entities]
        names = [name for reader in self._readers for name in reader.features]
        self._fresh: dict[str, FeatureStatus] = {
            view.name: "fresh" for entity in plan.entities for view in (entity.profile, entity.velocity)
        }
        self._width = len(names)
        self._inputs = np.array([names.index(name) for name in PROFILE_INPUTS])
        self.views = tuple(
            view.name
            for entity in plan.entities
            for view in (entity.profile, entity.velocity)
            if view.features
        )

    def commands(self, transactions: Sequence[Transaction]) -> list[bytes]:
        """One packed HMGET per transaction and entity it names: by transaction, then by entity."""
        packed = []
        for transaction in transactions:
            for reader in self._readers:
                value = getattr(transaction, reader.key)
                if value is not None:
                    packed.append(reader.command(value))
        return packed

    def keys(self, transactions: Sequence[Transaction]) -> list[bytes]:
        """The Redis key of each of `commands`, in the same order (a cluster routes by them)."""
        return [
            reader.redis_key(value)
            for transaction in transactions
            for reader in self._readers
            if (value := getattr(transaction, reader.key)) is not None
        ]

    def rows(
        self, transactions: Sequence[Transaction], event_us: Sequence[int], replies: Sequence[Any]
    ) -> OnlineRows:
        """Rows from the replies that arrived in time: the first so many of `commands`.

        `event_us` are the transactions' event times in microseconds. A reply that is an error
        counts as timed out: the feature store could not answer for it.
        """
        count = len(transactions)
        states: list[list[bytes | None]] = [[] for _ in self._readers]
        status: list[dict[str, FeatureStatus]] = []
        timestamps: list[dict[str, int]] = []
        flat: list[bytes | None] = []  # every profile value of the batch, decoded at once
        at, arrived, unanswered = 0, len(replies), 0
        for transaction, event in zip(transactions, event_us, strict=True):
            of_row = self._fresh.copy()  # what is not, says so below
            when: dict[str, int] = {}
            for place, reader in enumerate(self._readers):
                profile, velocity, width, state = reader.profile, reader.velocity, reader.width, None
                values = reader.nulls
                if getattr(transaction, reader.key) is None:
                    of_row[profile.name] = of_row[velocity.name] = "missing"
                else:
                    reply = replies[at] if at < arrived else None
                    at += 1
                    if type(reply) is list:
                        # Profile values, their timestamp, the state's timestamp, the state.
                        if _fresh(velocity, _microseconds(reply[-2]), event, of_row, when):
                            state = _state(reply[-1])
                            if state is None:
                                of_row[velocity.name] = "missing"
                        if _fresh(profile, _cut_microseconds(reply[width]), event, of_row, when):
                            values = reply[:width]
                    else:
                        unanswered += 1
                        of_row[profile.name] = of_row[velocity.name] = "timeout"
                flat += values
                states[place].append(state)
            status.append(of_row)
            timestamps.append(when)
        profiles = _doubles(flat).reshape(count, self._width)
        inputs = profiles.take(self._inputs, axis=1)
        return OnlineRows(states, profiles, inputs, status, timestamps, unanswered)


_parse_timestamp: Final = Timestamp.FromString
#: Bytes of a stored timestamp's whole seconds: a tag and a varint of five bytes, from 1978 to 3058.
_SECONDS_BYTES: Final = 6


def _parsed(stored: bytes | None) -> int | None:
    """A stored timestamp in microseconds since 1970 UTC (protobuf's C parser: 1 us); None if there is
    none to read."""
    if stored is None:
        return None
    try:
        timestamp = _parse_timestamp(stored)
    except DecodeError:
        return None
    return int(timestamp.seconds * 1_000_000 + timestamp.nanos // 1000)


@lru_cache(maxsize=1 << 14)
def _part(stored: bytes, tag: int) -> int | None:
    """As `_parsed`, of one field of a stored timestamp, or of none; None if it is cut elsewhere."""
    moment = _parsed(stored)
    whole = moment is not None and _parse_timestamp(stored).SerializeToString() == stored
    return moment if whole and stored[:1] in (b"", bytes((tag,))) else None


def _microseconds(stored: bytes | None) -> int | None:
    """As `_parsed`: states' timestamps differ, but their seconds and the rest of one both repeat."""
    if stored is None:
        return None
    seconds, rest = _part(stored[:_SECONDS_BYTES], 0x08), _part(stored[_SECONDS_BYTES:], 0x10)
    return _parsed(stored) if seconds is None or rest is None else seconds + rest


#: Profiles share the timestamps of a few cuts.
_cut_microseconds: Final = lru_cache(maxsize=1024)(_parsed)


def _fresh(
    view: ViewPlan,
    moment: int | None,
    event_us: int,
    status: dict[str, FeatureStatus],
    timestamps: dict[str, int],
) -> bool:
    """Whether what was stored at `moment` may be used; if not, `status` says why."""
    if moment is None:
        status[view.name] = "missing"
        return False
    timestamps[view.name] = moment
    if event_us - moment > view.ttl_us:
        status[view.name] = "stale"
        return False
    return True


def _state(value: bytes | None) -> bytes | None:
    """The packed state in a stored value; None if it holds none."""
    if value is None:
        return None
    try:
        # Nearly every state is 128 to 16,383 bytes long: a tag, two bytes of length, the bytes.
        if value[0] == 0x0A and value[1] >= 0x80 and value[2] < 0x80:
            length = (value[1] & 0x7F) | value[2] << 7
            if len(value) == length + 3:
                return value[3:]
        return decode_bytes(value)
    except (ValueError, IndexError):
        return None


def _doubles(values: list[bytes | None]) -> Floats:
    """Feast numbers as an array, NaN where null or absent."""
    try:
        data = b"".join(values)  # type: ignore[arg-type]  # the common case: nothing is absent
    except TypeError:
        data = b""
    if len(data) != _DOUBLE_SIZE * len(values):
        values = [value or _NULL_DOUBLE for value in values]
        data = b"".join(values)  # type: ignore[arg-type]
    # Tag and eight bytes each: if every ninth byte is the tag, the rest are the numbers.
    if len(data) == _DOUBLE_SIZE * len(values) and data[::_DOUBLE_SIZE] == _DOUBLE_TAG * len(values):
        return np.frombuffer(data, _TAGGED)["number"].astype(np.float64)
    return np.array([_number(value or _NULL_DOUBLE) for value in values], np.float64)


def _number(value: bytes) -> float:
    """One Feast number of any type, for rows that somebody wrote with another type."""
    tag, rest = value[0], value[1:]
    if tag == _DOUBLE_TAG[0]:
        return float(np.frombuffer(rest, "<f8")[0])
    if tag == 0x35:  # float
        return float(np.frombuffer(rest, "<f4")[0])
    if tag in (0x18, 0x20, 0x38):  # int32, int64, bool
        number = 0
        for place, byte in enumerate(rest):
            number |= (byte & 0x7F) << (7 * place)
        return float(number - (1 << 64) if number >= 1 << 63 else number)
    return float("nan")
